"""
The SQL of results in PostgreSQL: the table, and the statements that read and write it.

Decides what is locked, and in which order: rows are put in the order of the batch, which is the same in each process, and expired
rows that another process has locked are left to it. Nothing here needs psycopg, so that the schema can be shown without it.
"""

from __future__ import annotations

from amqpworker.results.row_listing import EXAMINED

TABLE = "amqpworker_results"
CHANNEL = "amqpworker_results"

SCHEMA_VERSION = 1
MARK = "amqpworker results, version "
"""A table is ours if its comment begins with this; the version follows."""

# The number means this table: a process that creates it waits for others that do.
LOCK = "SELECT pg_advisory_xact_lock(7026920345617524562)"

# Reading pg_class locks it, and with a lock a session takes notice of a table that was created since the transaction began.
FIND = f"SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass('{TABLE}')"  # noqa: S608

CREATE = f"""\
CREATE TABLE {TABLE} (
    namespace text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    state text NOT NULL,
    rank integer NOT NULL,
    task text NOT NULL,
    reply bytea NOT NULL,
    first_sent text COLLATE "C" NOT NULL,
    stored_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    attempt bigint NOT NULL,
    worker text NOT NULL,
    started_at double precision NOT NULL,
    progress bytea NOT NULL,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX {TABLE}_by_expiry ON {TABLE} (expires_at);
COMMENT ON TABLE {TABLE} IS '{MARK}{SCHEMA_VERSION}';
"""

GRANT = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO"

SHOWN = f"""\
-- The results of amqpworker, version {SCHEMA_VERSION} of the schema: in the first schema of the users' search_path.
BEGIN;
{CREATE}COMMIT;
-- For each user of apps and workers that does not own the table:
-- {GRANT} name;
"""
"""What `amqpworker results show-sql` prints."""

COLUMNS = "id, state, task, reply, first_sent, stored_at, expires_at, attempt, worker, started_at, progress"
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS.split(", ")[1:], "rank"))

# As `ResultRow.replaces`. One statement is one transaction, and takes one round trip. The INSERT is executed although nothing
# reads its result: https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING
PUT = f"""
WITH stored AS (
    INSERT INTO {TABLE} AS known (namespace, {COLUMNS}, rank)
    SELECT %s::text, * FROM unnest(
        %s::text[], %s::text[], %s::text[], %s::bytea[], %s::text[], %s::float8[], %s::float8[], %s::bigint[], %s::text[],
        %s::float8[], %s::bytea[], %s::bigint[])
    ON CONFLICT (namespace, id) DO UPDATE SET {_REPLACED}
    WHERE (known.first_sent, known.rank) <= (excluded.first_sent, excluded.rank)
)
SELECT count(pg_notify('{CHANNEL}', payload)) FROM unnest(%s::text[]) AS payload
"""  # noqa: S608
NOTIFY = f"SELECT pg_notify('{CHANNEL}', %s)"
GET = f"SELECT {COLUMNS} FROM {TABLE} WHERE namespace = %s AND id = ANY(%s::text[])"  # noqa: S608
# By the index of expiries: what was stored lately and is kept for the usual time, then what is kept for longer.
_LISTED = "id, state, task, ''::bytea, first_sent, stored_at, expires_at, attempt, worker, started_at, progress"
LATEST = f"""
SELECT {_LISTED} FROM (
    (SELECT * FROM {TABLE} WHERE expires_at <= %(usual)s ORDER BY expires_at DESC LIMIT {EXAMINED // 2})
    UNION ALL (SELECT * FROM {TABLE} WHERE expires_at > %(usual)s ORDER BY expires_at LIMIT {EXAMINED // 2})
) AS found
WHERE namespace = %(namespace)s AND expires_at > %(now)s AND %(state)s IN ('', state) AND id NOT LIKE ALL (%(others)s)
ORDER BY stored_at DESC LIMIT %(most)s
"""  # noqa: S608
DELETE = f"DELETE FROM {TABLE} WHERE namespace = %s AND id = ANY(%s::text[])"  # noqa: S608
# Also by the server's clock: a host whose clock is days ahead would delete what all others have stored.
EXPIRE = (
    f"DELETE FROM {TABLE} WHERE ctid = ANY(ARRAY("  # noqa: S608
    f"SELECT ctid FROM {TABLE} WHERE expires_at <= LEAST(%s::float8, extract(epoch FROM now())::float8)"
    " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED))"
)
