"""One token a passage in an agent of LangChain: ``python -m rarebit.cookbook.one_token_agent``.

SmolLM2-135M-Instruct cannot call tools: its chat template has no place for them. So the agent retrieves in a middleware, before
it answers. Passages stay in its memory: all but the surest as references, which later answers read again for one token each. A
second agent, to compare, has them all as text. Needs the package ``langchain``.

A model whose template takes tools decides by itself when to search. Its tool's answers carry the same references:

.. code-block:: python

    search = create_retriever_tool(retriever, "python_docs", "Searches the documentation of Python's standard library.")
    agent = create_agent(ChatOneToken(generator=generator), [search])
"""

from __future__ import annotations

from typing import Any

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware, before_agent
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime

from rarebit.compressors.context import BACKGROUND
from rarebit.cookbook.models import MiniLMEmbeddings
from rarebit.cookbook.one_token_langchain import (
    BUDGETS,
    ENTRIES,
    QUESTIONS,
    UNANSWERED,
    chat_of,
    cost_of,
    generator_for,
    joined,
    nothing_in,
    on_one_line,
    retriever_of,
)
from rarebit.cookbook.relevance_langchain import functions
from rarebit.integrations.langchain import ChatOneToken, RarebitVectorStore


def retrieving(retriever: BaseRetriever) -> AgentMiddleware[Any, Any, Any]:
    """Make a middleware that puts passages beside the last question, and ends where none is relevant."""

    @before_agent(can_jump_to=["end"])
    def retrieve(state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        del runtime
        asked = state["messages"][-1]
        found = retriever.invoke(asked.text)
        if nothing_in(found):
            return {"messages": [AIMessage(found[0].page_content)], "jump_to": "end"}
        content = BACKGROUND.format(context=joined(found), question=asked.text)
        return {"messages": [asked.model_copy(update={"content": content})]}  # of the same id, so it takes its place

    return retrieve


def agent_of(retriever: BaseRetriever, chat: ChatOneToken) -> Any:
    """Make an agent that retrieves, and remembers."""
    return create_agent(chat, middleware=[retrieving(retriever)], checkpointer=InMemorySaver())


def main(count: int | None = ENTRIES) -> None:
    """Fill a store, and talk to two agents."""
    store = RarebitVectorStore(MiniLMEmbeddings())
    store.add_documents(functions(count))
    generator = generator_for(store.collection)
    for name in ("mixed", "text"):
        print(f"\n{name}")
        agent = agent_of(retriever_of(store, generator, BUDGETS[name]), chat_of(generator))
        for question in (*QUESTIONS, UNANSWERED):
            said = agent.invoke({"messages": [("user", question)]}, {"configurable": {"thread_id": name}})["messages"]
            print(f"  {question}\n    {cost_of(said[-1])}\n    {on_one_line(said[-1].text)}")


if __name__ == "__main__":
    main()
