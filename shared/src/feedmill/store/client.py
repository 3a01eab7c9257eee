"""The store: every call has a deadline, waits its turn, and fails with :class:`~feedmill.errors.Outage`.

Any other error of the driver means that the call itself can't work: a bug, which is not hidden.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from feedmill.errors import MessageError, Outage
from feedmill.ids import PostId
from feedmill.settings import StoreSettings
from feedmill.store import faults
from feedmill.store.driver import display_address, make_client
from feedmill.store.feed import ChangeFeed
from feedmill.store.writes import Write, WriteReport, encoding_fault, operations, waves

Document = dict[str, Any]

MAX_IDS_PER_QUERY = 100
"""Some MongoDB-like servers take quadratic time over a long ``$in``; to a mongod a few more questions are nothing."""

_DUPLICATE_KEY = 11000
_INDEX_EXISTS_CODES = {85, 86}  # IndexOptionsConflict, IndexKeySpecsConflict


class Store:
    """One database. Make it with :meth:`open` on the event loop that uses it.

    A semaphore as wide as the driver's pool stands before the driver and serves callers in order of arrival: with more
    callers than connections the driver's own queue let some of them wait for seconds.
    """

    def __init__(self, settings: StoreSettings, client: Any) -> None:
        self.settings = settings
        self.address = display_address(settings)
        """Hosts and database, without credentials: for logs."""
        self._client = client
        self._database = client[settings.database]
        # The URI may ask for another pool than the settings do; 0 or None there means without a limit.
        self._slots = asyncio.Semaphore(client.options.pool_options.max_pool_size or settings.pool_size)

    @classmethod
    def open(cls, settings: StoreSettings, app_name: str = "feedmill") -> Store:
        """A store that connects on first use: this does no I/O. ``app_name`` shows in the server's logs.

        Raises:
            SettingsError: the driver refuses ``MONGO_URI``.
        """
        return cls(settings, make_client(settings, app_name))

    async def ping(self) -> None:
        """Return if the server answers and takes our login. Raises Outage."""
        async with self._call("ping"):
            await self._client.admin.command("ping")

    async def close(self) -> None:
        """Close all connections. The store can't be used afterwards."""
        closing = self._client.close()
        if inspect.isawaitable(closing):  # of PyMongo's client, not of Motor's
            await closing

    async def write(self, collection: str, writes: Sequence[Write]) -> WriteReport:
        """Write all that can be written, in as few bulk writes as keep the order of writes to one id.

        Answers after the acknowledgement that the write concern asks for (a majority by default). A write that can't
        be encoded or that the server refuses is an error in its place and leaves the others alone.

        Raises:
            Outage: the database is away. Some of the writes may have happened: write again.
        """
        errors: list[MessageError | None] = [None] * len(writes)
        missing = 0
        for wave in waves(writes):
            missing += await self._write_wave(collection, writes, wave, errors)
        return WriteReport(errors, missing)

    async def find(
        self, collection: str, ids: Iterable[PostId], projection: Mapping[str, int] | None = None
    ) -> dict[PostId, Document]:
        """The documents of ``ids`` that exist, by id. Raises Outage."""
        wanted = list(dict.fromkeys(ids))
        found: dict[PostId, Document] = {}
        for start in range(0, len(wanted), MAX_IDS_PER_QUERY):
            query = {"_id": {"$in": wanted[start : start + MAX_IDS_PER_QUERY]}}
            async with self._call("find"):
                documents = await self._database[collection].find(query, projection).to_list(None)
            found.update((document["_id"], document) for document in documents)
        return found

    async def scan(
        self,
        collection: str,
        query: Mapping[str, Any] | None = None,
        projection: Mapping[str, int] | None = None,
        batch_size: int = 1000,
    ) -> AsyncGenerator[list[Document], None]:
        """All documents that match, in lists of at most ``batch_size``, in no order. Raises Outage.

        The deadline is for each list. Close the iterator (``contextlib.aclosing``) when leaving it early.
        """
        cursor = self._database[collection].find(query or {}, projection, batch_size=batch_size)
        try:
            while True:
                async with self._call("scan"):
                    documents: list[Document] = await cursor.to_list(batch_size)
                if not documents:
                    return
                yield documents
        finally:
            await self._close_cursor(cursor)

    async def sample(
        self, collection: str, size: int, projection: Mapping[str, int]
    ) -> AsyncGenerator[list[Document], None]:
        """``size`` documents by chance, in lists; some may come twice. Raises Outage, also where it takes too long.

        Below a twentieth of a collection the server picks them by their places; above, it reads them all.
        """
        stages = [{"$sample": {"size": size}}, {"$project": projection}]
        limit = int(self.settings.operation_timeout_seconds * 1000)
        cursor: Any = self._database[collection].aggregate(stages, allowDiskUse=True, maxTimeMS=limit)
        if inspect.isawaitable(cursor):  # PyMongo's client sends the command here, Motor's at the first read
            async with self._call("sample"):
                cursor = await cursor
        try:
            while True:
                async with self._call("sample"):
                    documents: list[Document] = await cursor.to_list(1000)
                if not documents:
                    return
                yield documents
        finally:
            await self._close_cursor(cursor)

    def watch(self, collection: str, resume_token: Mapping[str, Any] | None = None) -> ChangeFeed:
        """The changes of ``collection`` from now on, or after ``resume_token``."""
        return ChangeFeed(self._database[collection], resume_token, self.settings.operation_timeout_seconds)

    async def page(self, collection: str, after: PostId, upto: PostId | None, limit: int) -> list[PostId]:
        """Ids above ``after``, and up to ``upto``, of the same type, in order, at most ``limit``. Raises Outage."""
        query = {"_id": {"$gt": after} if upto is None else {"$gt": after, "$lte": upto}}
        async with self._call("page"):
            cursor = self._database[collection].find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            return [document["_id"] for document in await cursor.to_list(limit)]

    async def count(self, collection: str) -> int:
        """How many documents there are, as the server's own figures say. Raises Outage."""
        async with self._call("count"):
            return int(await self._database[collection].estimated_document_count())

    async def delete(self, collection: str, ids: Iterable[PostId], where: Mapping[str, Any] | None = None) -> int:
        """Remove those of ``ids`` that are there and for which ``where`` holds; answer how many. Raises Outage."""
        async with self._call("delete"):
            done = await self._database[collection].delete_many({**(where or {}), "_id": {"$in": list(ids)}})
            return int(done.deleted_count)

    async def drop(self, collection: str) -> None:
        """Remove a collection with its indexes; one that does not exist doesn't matter. Raises Outage."""
        async with self._call("drop"):
            await self._database[collection].drop()

    async def ensure_index(self, collection: str, field: str) -> None:
        """Make an ascending index on ``field``; one that exists, whatever its options, is left as it is."""
        async with self._call("create index"):
            try:
                await self._database[collection].create_index(field)
            except OperationFailure as error:
                if error.code not in _INDEX_EXISTS_CODES:
                    raise

    async def _write_wave(
        self, collection: str, writes: Sequence[Write], wave: Sequence[int], errors: list[MessageError | None]
    ) -> int:
        """Write ``wave`` (positions in ``writes``), note its errors in ``errors``, answer how many found nothing."""
        try:
            return await self._bulk_write(collection, writes, wave, errors)
        except faults.ENCODING_ERRORS:
            # The driver encodes before it sends, and doesn't say which document is at fault. Looking for it only now
            # keeps the usual case at one encoding a document.
            sound = []
            for position in wave:
                errors[position] = encoding_fault(writes[position])
                if errors[position] is None:
                    sound.append(position)
            if len(sound) == len(wave):
                raise
            return await self._bulk_write(collection, writes, sound, errors)

    async def _bulk_write(
        self, collection: str, writes: Sequence[Write], wave: Sequence[int], errors: list[MessageError | None]
    ) -> int:
        if not wave:
            return 0
        batch = operations(writes[position] for position in wave)
        async with self._call("write"):
            try:
                result = await self._database[collection].bulk_write(batch, ordered=False)
                counts = result.bulk_api_result
            except BulkWriteError as error:
                counts = error.details or {}
                if outage := faults.bulk_outage(counts):
                    raise outage from error
        refused = [
            entry for entry in counts.get("writeErrors", []) if not _is_unmet(writes[wave[entry["index"]]], entry)
        ]
        for entry in refused:
            errors[wave[entry["index"]]] = faults.write_error(entry.get("code"))
        return len(wave) - len(refused) - int(counts.get("nMatched", 0)) - int(counts.get("nUpserted", 0))

    async def _close_cursor(self, cursor: Any) -> None:
        """Best effort: the server drops a forgotten cursor by itself."""
        try:
            async with self._call("close cursor"):
                await cursor.close()
        except (Outage, PyMongoError):
            return

    @asynccontextmanager
    async def _call(self, what: str) -> AsyncIterator[None]:
        """A turn at the driver, with a deadline; its errors become Outage."""
        limit = self.settings.operation_timeout_seconds
        try:
            async with asyncio.timeout(limit), self._slots:
                yield
        except TimeoutError as error:
            raise Outage(faults.DEPENDENCY, f"no answer to {what} within {limit:g} s") from error
        except PyMongoError as error:
            if outage := faults.as_outage(error):
                raise outage from error
            raise


def _is_unmet(write: Write, error: Mapping[str, Any]) -> bool:
    """Whether the error only says that ``where`` did not hold: the server then tried to make a second document."""
    return bool(write.where) and write.upsert and error.get("code") == _DUPLICATE_KEY
