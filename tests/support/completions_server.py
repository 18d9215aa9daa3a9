"""A small server that speaks vLLM's completions protocol with ``prompt_embeds``, on this machine, for one model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import torch

KEY = "a key"


class CompletionsServer(ThreadingHTTPServer):
    """Answers greedily; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, model: Any, tokenizer: Any, *, takes_embeddings: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.tokenizer, self.takes_embeddings = model, tokenizer, takes_embeddings
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.break_off = False

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def tokens(self, packed: str, longest: int) -> list[int]:
        """Give the tokens that follow embeddings."""
        embedded = torch.load(io.BytesIO(base64.b64decode(packed)), weights_only=True)
        with torch.inference_mode():
            written = self.model.generate(
                inputs_embeds=embedded[None],
                attention_mask=torch.ones(1, len(embedded), dtype=torch.long),
                max_new_tokens=longest,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return [int(token) for token in written[0]]


class _Handler(BaseHTTPRequestHandler):
    server: CompletionsServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(request)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.path != "/v1/completions" or not self.server.takes_embeddings:
            self._send(400, {"error": {"message": "You must set `--enable-prompt-embeds` to input `prompt_embeds`."}})
            return
        given = request["prompt_embeds"]
        answers = [self._answer(packed, request) for packed in ([given] if isinstance(given, str) else given)]
        if request.get("stream"):
            self._stream(*answers[0])
            return
        choices = [{"index": index, "text": text, "finish_reason": reason} for index, (text, reason, _) in enumerate(answers)]
        usage = {"completion_tokens": sum(count for *_, count in answers)}
        self._send(200, {"object": "text_completion", "choices": choices[::-1], "usage": usage})

    def _answer(self, packed: str, request: dict[str, Any]) -> tuple[str, str, int]:
        tokens = self.server.tokens(packed, request["max_tokens"])
        text = self.server.tokenizer.decode(tokens, skip_special_tokens=True)
        ended = tokens[-1] == self.server.tokenizer.eos_token_id
        for stop in request.get("stop", []):
            if stop in text:
                text, ended = text[: text.index(stop)], True
        return text, "stop" if ended else "length", len(tokens)

    def _stream(self, text: str, reason: str, count: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for place, letter in enumerate(text):
            self._event({"choices": [{"index": 0, "text": letter, "finish_reason": None}]})
            if self.server.break_off and place == 2:
                self._event({"error": {"message": "out of memory"}})
                return
        self._event({"choices": [{"index": 0, "text": "", "finish_reason": reason}]})
        self._event({"choices": [], "usage": {"completion_tokens": count}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, given: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(given)}\n\n".encode())

    def _send(self, status: int, given: dict[str, Any]) -> None:
        body = json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        del args


@contextmanager
def serving(model: Any, tokenizer: Any, **settings: Any) -> Iterator[CompletionsServer]:
    """Serve while the block runs."""
    with CompletionsServer(model, tokenizer, **settings) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
