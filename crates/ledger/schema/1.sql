-- The ledger, version 1. Never changed once released: later versions add files.
--
-- Rows that the decisions read and write as a whole are JSON beside the columns that are searched. Ids are 16 bytes,
-- times are nanoseconds since 1970 (UTC).

CREATE TABLE installation (
  n       INTEGER PRIMARY KEY CHECK (n = 1),
  version INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT;
INSERT INTO installation VALUES (
  1, 1, json_object('id', lower(hex(randomblob(16))), 'secret', random() & 9223372036854775807, 'next_incident', 0)
);

-- Commits that were executed, so that one whose answer was lost can be sent again.
CREATE TABLE executed (
  n  INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE
) STRICT;

-- Short numbers for source ids.
CREATE TABLE source_name (
  n  INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE source (
  n       INTEGER PRIMARY KEY REFERENCES source_name,
  version INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT;

-- Leaves: what never changes, and apart from it the day of their last use.
CREATE TABLE leaf (
  n       INTEGER PRIMARY KEY,
  source  INTEGER NOT NULL REFERENCES source_name,
  leaf    BLOB    NOT NULL,
  program TEXT    NOT NULL,
  text    TEXT    NOT NULL,
  example BLOB    NOT NULL,
  first   INTEGER NOT NULL,
  UNIQUE (source, leaf)
) STRICT;
-- Evicted: remembered by their ids, oldest first.
CREATE TABLE leaf_gone (
  n      INTEGER PRIMARY KEY,
  source INTEGER NOT NULL REFERENCES source_name,
  leaf   BLOB    NOT NULL,
  UNIQUE (source, leaf)
) STRICT;
CREATE TABLE leaf_used (
  n   INTEGER PRIMARY KEY,
  day INTEGER NOT NULL
) STRICT;

-- The memory of normal: what never changes, and apart from it the numbers that every pass moves.
CREATE TABLE memory (
  n        INTEGER PRIMARY KEY,
  source   INTEGER NOT NULL REFERENCES source_name,
  key      BLOB    NOT NULL,
  host     TEXT    NOT NULL,
  service  TEXT    NOT NULL,
  root     BLOB    NOT NULL,
  template TEXT    NOT NULL,
  UNIQUE (source, key)
) STRICT;
CREATE TABLE memory_hot (
  n   INTEGER PRIMARY KEY,
  hot BLOB NOT NULL
) STRICT;
CREATE TABLE memory_source (
  source INTEGER PRIMARY KEY REFERENCES source_name,
  row    BLOB NOT NULL
) STRICT;

-- Lines taken, per minute: ids with their queries (16 + 8 bytes each, sorted by id), and the number per query (4 bytes).
CREATE TABLE seen (
  n      INTEGER PRIMARY KEY,
  source INTEGER NOT NULL REFERENCES source_name,
  minute INTEGER NOT NULL,
  lines  BLOB    NOT NULL,
  counts BLOB    NOT NULL,
  UNIQUE (source, minute)
) STRICT;

-- Segments are JSON compressed with zstd: four of five bytes are text that repeats.
CREATE TABLE segment (
  n    INTEGER PRIMARY KEY,
  id   BLOB    NOT NULL UNIQUE,
  at   INTEGER NOT NULL,
  size INTEGER NOT NULL,
  row  BLOB    NOT NULL
) STRICT;
CREATE INDEX segment_at ON segment (at);

CREATE TABLE job (
  n       INTEGER PRIMARY KEY,
  segment BLOB    NOT NULL,
  profile TEXT    NOT NULL,
  version INTEGER NOT NULL,
  open    INTEGER NOT NULL,
  created INTEGER NOT NULL,
  row     TEXT    NOT NULL,
  UNIQUE (segment, profile)
) STRICT;
CREATE INDEX job_open ON job (created) WHERE open;

CREATE TABLE summary (
  n       INTEGER PRIMARY KEY,
  segment BLOB    NOT NULL,
  profile TEXT    NOT NULL,
  at      INTEGER NOT NULL,
  row     TEXT    NOT NULL,
  UNIQUE (segment, profile)
) STRICT;
CREATE INDEX summary_at ON summary (at);

CREATE TABLE incident (
  n       INTEGER PRIMARY KEY,
  id      BLOB    NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  firing  INTEGER NOT NULL,
  last    INTEGER NOT NULL,
  touched INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT;
CREATE INDEX incident_last ON incident (last);
CREATE INDEX incident_firing ON incident (id) WHERE firing;

CREATE TABLE key (
  key      BLOB    PRIMARY KEY,
  version  INTEGER NOT NULL,
  incident BLOB    NOT NULL,
  soft     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_incident ON key (incident);

CREATE TABLE event (
  incident BLOB    NOT NULL,
  seq      INTEGER NOT NULL,
  row      TEXT    NOT NULL,
  PRIMARY KEY (incident, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
  n         INTEGER PRIMARY KEY,
  incident  BLOB    NOT NULL,
  first_seq INTEGER NOT NULL,
  channel   TEXT    NOT NULL,
  version   INTEGER NOT NULL,
  open      INTEGER NOT NULL,
  settled   INTEGER NOT NULL,
  row       TEXT    NOT NULL,
  UNIQUE (incident, first_seq, channel)
) STRICT;
CREATE INDEX outbox_open ON outbox (channel) WHERE open;

CREATE TABLE sending (
  n       INTEGER PRIMARY KEY,
  id      BLOB    NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  channel TEXT    NOT NULL,
  open    INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT;
CREATE INDEX sending_open ON sending (channel) WHERE open;

CREATE TABLE channel (
  name    TEXT    PRIMARY KEY,
  version INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mute (
  id  TEXT PRIMARY KEY,
  row TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE verdict (
  leaf        BLOB    NOT NULL,
  profile     TEXT    NOT NULL,
  fingerprint TEXT    NOT NULL,
  until       INTEGER NOT NULL,
  PRIMARY KEY (leaf, profile, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
  name TEXT    PRIMARY KEY,
  n    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Pushed batches that wait, with their number and size kept beside them: counting a gigabyte would take too long.
CREATE TABLE spool (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
  batch   BLOB    NOT NULL,
  at      INTEGER NOT NULL,
  lines   INTEGER NOT NULL,
  bytes   INTEGER NOT NULL,
  body    BLOB    NOT NULL
) STRICT;
CREATE TABLE spool_size (
  n     INTEGER PRIMARY KEY CHECK (n = 1),
  rows  INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) STRICT;
INSERT INTO spool_size VALUES (1, 0, 0);

-- Names of batches, also of those that are gone; `gone` is when that was first noticed.
CREATE TABLE batch (
  id   BLOB PRIMARY KEY,
  gone INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
  at      INTEGER NOT NULL,
  sender  TEXT    NOT NULL,
  reason  TEXT    NOT NULL,
  body    BLOB    NOT NULL
) STRICT;

CREATE TABLE value (
  name    TEXT    PRIMARY KEY,
  version INTEGER NOT NULL,
  row     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
