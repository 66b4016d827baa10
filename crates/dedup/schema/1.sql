-- The deduplication store, version 1. Never changed once released: later versions add files.
--
-- Ids are 16 bytes, times nanoseconds since 1970 by this store's clock. A rank is the severity as a number (0 low to
-- 3 critical), plus 8 for a detector's claim: larger is louder.

-- The last time that a key was told in a channel at a rank.
CREATE TABLE told (
  channel BLOB    NOT NULL,
  key     BLOB    NOT NULL,
  rank    INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  receipt TEXT    NOT NULL,
  PRIMARY KEY (channel, key, rank)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_at ON told (at);

-- Claims that are not settled, also those whose lease is over: what arrives late has arrived. `sending` is 0 when the
-- message may have arrived and waits to be tried again. `at` is when it was reserved, `since` when it became what it is.
CREATE TABLE claim (
  id      BLOB    PRIMARY KEY,
  epoch   INTEGER NOT NULL,
  channel BLOB    NOT NULL,
  at      INTEGER NOT NULL,
  since   INTEGER NOT NULL,
  until   INTEGER NOT NULL,
  sending INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_at ON claim (at);
CREATE TABLE claim_key (
  claim   BLOB    NOT NULL REFERENCES claim (id) ON DELETE CASCADE,
  channel BLOB    NOT NULL,
  key     BLOB    NOT NULL,
  rank    INTEGER NOT NULL,
  PRIMARY KEY (channel, key, claim, rank)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_key_claim ON claim_key (claim);

-- Messages that were delivered.
CREATE TABLE settled (
  id      BLOB    PRIMARY KEY,
  at      INTEGER NOT NULL,
  receipt TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_at ON settled (at);
