"""Every error Rarebit raises, in one tree.

::

    RarebitError
    ├── InputError (ValueError)             what was passed in cannot be used; nothing was changed
    │   ├── DimensionError                  a vector of another length
    │   ├── VectorError                     NaN, infinity, not a matrix, not numbers
    │   ├── DuplicateIdError                one id twice in one call
    │   ├── MetadataError                   metadata that JSON cannot hold
    │   └── FilterError                     a filter that cannot be understood
    ├── BuildError                          a bulk build whose workers cannot go on
    ├── CalibrationError (ValueError)       scores of another model or source than a relevance was calibrated on
    ├── MissingRowError (KeyError)          an id that the collection does not hold
    ├── EndpointError (ConnectionError)     a served language model that cannot be reached, or refuses
    ├── MissingExtraError (ImportError)     an optional dependency is not installed
    ├── CodecError                          a codec cannot do what was asked
    │   └── NotFittedError                  a codec used before it was fitted or loaded
    └── CollectionError                     the collection or its file
        ├── CollectionNotFoundError (FileNotFoundError)
        ├── ForeignFileError                the file is not a Rarebit collection
        ├── FormatVersionError              the file was written by another version of Rarebit
        ├── DamagedFileError                the file's content contradicts itself
        ├── SettingsError (ValueError)      opened with settings that the file does not have
        ├── FingerprintError                another embedding model than the one that filled it
        ├── ReadOnlyError                   a write to a collection opened read-only
        ├── StorageFullError (OSError)      the disk is full
        ├── StorageError (OSError)          the operating system refused to read or write
        ├── LockedError (TimeoutError)      another writer held the file for too long
        ├── ClosedError                     used after close()
        └── EngineError                     the engine on another machine could not do it
            ├── EngineUnreachableError (ConnectionError)
            ├── AccessError (PermissionError)    it refuses these credentials, or this role
            └── EngineLimitError            it has no such thing; an embedded collection has

Each message says what was given, what was wanted and what to do.
"""

from __future__ import annotations


class RarebitError(Exception):
    """Base of every error that Rarebit raises on purpose."""


class InputError(RarebitError, ValueError):
    """What was passed in cannot be used; the collection is unchanged."""


class DimensionError(InputError):
    """A vector whose length is not the collection's or the codec's dimension."""


class VectorError(InputError):
    """Vectors that are not finite numbers in a matrix."""


class DuplicateIdError(InputError):
    """The same id occurs more than once in one call."""


class MetadataError(InputError):
    """Metadata that JSON cannot hold without loss."""


class FilterError(InputError):
    """A filter that cannot be understood."""


class BuildError(RarebitError):
    """The workers of a bulk build cannot go on; what they have finished is kept."""


class CalibrationError(RarebitError, ValueError):
    """Scores of another embedding model, metric or codec than those that a relevance was calibrated on."""


class MissingRowError(RarebitError, KeyError):
    """An id that the collection does not hold."""

    def __str__(self) -> str:
        """Return the message itself; KeyError would print its repr."""
        return str(self.args[0]) if self.args else ""


class EndpointError(RarebitError, ConnectionError):
    """A server of a language model cannot be reached, refuses, or answers something else."""


class MissingExtraError(RarebitError, ImportError):
    """An optional dependency is not installed."""


class CodecError(RarebitError):
    """A codec cannot do what was asked."""


class NotFittedError(CodecError):
    """A codec was used before it was fitted or loaded."""


class CollectionError(RarebitError):
    """Base of the errors about a collection and its file."""


class CollectionNotFoundError(CollectionError, FileNotFoundError):
    """The file does not exist and was not to be created."""


class ForeignFileError(CollectionError):
    """The file is not a Rarebit collection."""


class FormatVersionError(CollectionError):
    """The file has a format that this version of Rarebit does not know."""


class DamagedFileError(CollectionError):
    """The content of the file contradicts itself."""


class SettingsError(CollectionError, ValueError):
    """The collection was opened with settings that it does not have."""


class FingerprintError(CollectionError):
    """Vectors of another embedding model than the one that filled the collection."""


class ReadOnlyError(CollectionError):
    """A write to a collection that was opened read-only."""


class StorageFullError(CollectionError, OSError):
    """The disk is full; the call that met this changed nothing."""


class StorageError(CollectionError, OSError):
    """The operating system refused to read or write the file."""


class LockedError(CollectionError, TimeoutError):
    """Another writer held the file for longer than ``lock_timeout``."""


class ClosedError(CollectionError):
    """The collection was used after ``close()``."""


class EngineError(CollectionError):
    """An engine on another machine could not do what was asked."""


class EngineUnreachableError(EngineError, ConnectionError):
    """There is no connection to the engine, or it broke."""


class AccessError(EngineError, PermissionError):
    """The engine does not let these credentials in, or does not let their role do this."""


class EngineLimitError(EngineError):
    """The engine has no such thing."""


class CodecWarning(UserWarning):
    """A codec does less than a simpler one would on the vectors that it was fitted on; not an error, and not in the tree."""


class TransferWarning(UserWarning):
    """Something of what was imported is not as it was in the source; not an error, and not in the tree."""
