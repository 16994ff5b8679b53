"""The tables of a store. SQLite and PostgreSQL share them."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from comagent.sqlite import Format

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("parent", Text),
    Column("shard", Text, nullable=False),
    Column("process_name", Text, nullable=False),
    Column("process_hash", Text, nullable=False),
    Column("root_path", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("payload_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("global_epoch", BigInteger, nullable=False),
    Column("regional_epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("error", LargeBinary),
    Column("submitted_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    UniqueConstraint("tenant", "idem_key"),
    sqlite_with_rowid=False,
)

Index(
    "unfinished_jobs",
    jobs.c.shard,
    jobs.c.job_id,
    sqlite_where=jobs.c.ended_ms.is_(None),
    postgresql_where=jobs.c.ended_ms.is_(None),
)

# Apart from the jobs, whose rows are written anew with every commit: SQLite would copy a megabyte of process each time.
submissions = Table(
    "submissions",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("process_doc", LargeBinary, nullable=False),
    Column("tools_doc", LargeBinary, nullable=False),
    Column("inputs_doc", LargeBinary, nullable=False),
)

# Newest known owner of a shard: a replaced one must not admit jobs either.
shards = Table(
    "shards",
    metadata,
    Column("shard", Text, primary_key=True),
    Column("global_epoch", BigInteger, nullable=False),
    Column("regional_epoch", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Kept in order of seq, so that rows are appended and streams read in sequence.
progress = Table(
    "progress",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("global_epoch", BigInteger, nullable=False),
    Column("regional_epoch", BigInteger, nullable=False),
    Column("task", Text, nullable=False),
    Column("dispatch", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("result", LargeBinary),
    Column("document", Text),
    Column("error", LargeBinary),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "seq"),
    UniqueConstraint("job_id", "task"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("task", Text),
    Column("body", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "seq"),
    sqlite_with_rowid=False,
)

batches = Table(
    "batches",
    metadata,
    Column("shard", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("seq_from", BigInteger, nullable=False),
    Column("seq_to", BigInteger, nullable=False),
    PrimaryKeyConstraint("shard", "n", "job_id"),
    sqlite_with_rowid=False,
)

documents = Table(
    "documents",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    sqlite_with_rowid=False,
)

_statements: list[ExecutableDDLElement] = [
    *(CreateTable(table) for table in metadata.sorted_tables),
    *(CreateIndex(index) for table in metadata.sorted_tables for index in table.indexes),
]

SQLITE_FORMAT = Format(
    name="a ComAgent store",
    application_id=0x436F6D41,  # "ComA"
    create=tuple(str(statement.compile(dialect=sqlite.dialect())) for statement in _statements),
)
