-- The state database as version 0.3.0 made it.
CREATE TABLE trust(
  anchor TEXT PRIMARY KEY,            -- digest of the root that was pinned
  pinned BLOB NOT NULL,               -- trust file as pinned
  newer BLOB NOT NULL                 -- parcel of every newer trust document taken over since
) STRICT;
CREATE TABLE requests(
  nonce TEXT PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  answered TEXT                       -- digest of the activation that answered it
) STRICT;
CREATE TABLE documents(
  kind TEXT NOT NULL CHECK(kind IN ('license','activation','lease','acknowledgement')),
  license_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY(kind, license_id)
) STRICT;
CREATE TABLE bundles(
  bundle_digest TEXT PRIMARY KEY,
  bundle_id TEXT NOT NULL,
  record BLOB NOT NULL,               -- canonical JSON, authenticated by mac
  mac BLOB NOT NULL CHECK(length(mac) = 32)
) STRICT;
CREATE TABLE terms(
  license_id TEXT NOT NULL,
  terms_digest TEXT NOT NULL,
  accepted_at INTEGER NOT NULL,
  PRIMARY KEY(license_id, terms_digest)
) STRICT;
CREATE TABLE clock(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  hard INTEGER NOT NULL CHECK(hard >= 0),
  soft INTEGER NOT NULL CHECK(soft >= hard),
  budget INTEGER NOT NULL CHECK(budget >= 0),
  boot_id TEXT NOT NULL,
  monotonic INTEGER NOT NULL,
  pending_wall INTEGER,
  pending_run INTEGER NOT NULL CHECK(pending_run >= 0),
  behind INTEGER NOT NULL CHECK(behind IN (0, 1)),
  events TEXT NOT NULL,               -- JSON list of [name, delta] no record tells of yet
  own INTEGER NOT NULL,               -- soft without what documents alone added
  stage INTEGER NOT NULL CHECK(stage IN (0, 1, 2))  -- of believing a first wall clock
) STRICT;
CREATE TABLE logs(
  log INTEGER PRIMARY KEY,
  origin TEXT NOT NULL UNIQUE,
  license_id TEXT NOT NULL,
  epoch INTEGER NOT NULL CHECK(epoch >= 0),
  size INTEGER NOT NULL CHECK(size >= 0),
  roots TEXT NOT NULL,                -- frontier at size, hex
  checkpoint BLOB NOT NULL,           -- signed note at size
  boot INTEGER NOT NULL CHECK(boot >= 0),
  boot_key TEXT NOT NULL,             -- what the newest boot record stands for
  uptime_ms INTEGER NOT NULL,
  tally_size INTEGER NOT NULL,        -- size after the newest tally
  quarter INTEGER NOT NULL,           -- quarter hour of the newest usage record
  started INTEGER,                    -- soft time of the first admitted call, ms
  acked_size INTEGER NOT NULL CHECK(acked_size <= size),
  acked_roots TEXT NOT NULL,
  ack_seq INTEGER NOT NULL,
  exported_size INTEGER NOT NULL,
  file_seq INTEGER NOT NULL,
  UNIQUE(license_id, epoch)
) STRICT;
CREATE TABLE leaves(
  log INTEGER NOT NULL,
  n INTEGER NOT NULL,
  kind TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(log, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE routes(
  log INTEGER NOT NULL,
  route TEXT NOT NULL,
  entry TEXT NOT NULL,                -- canonical JSON of the boot record's entry
  PRIMARY KEY(log, route),
  UNIQUE(log, entry)
) STRICT;
CREATE TABLE registers(
  log INTEGER NOT NULL,
  route TEXT NOT NULL,
  status TEXT NOT NULL,
  meter TEXT NOT NULL,
  total INTEGER NOT NULL CHECK(total >= 0),
  PRIMARY KEY(log, route, status, meter)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters(
  license_id TEXT NOT NULL,
  period TEXT NOT NULL,               -- day:N, month:YYYY-MM, term, bundle:<digest>
  meter TEXT NOT NULL,
  used INTEGER NOT NULL CHECK(used >= 0),
  reserved INTEGER NOT NULL CHECK(reserved >= 0),
  PRIMARY KEY(license_id, period, meter)
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations(
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  license_id TEXT NOT NULL,
  owner TEXT NOT NULL,                -- lock file of the process that holds it
  route TEXT NOT NULL,
  periods TEXT NOT NULL,              -- JSON list of the counter periods it counts in
  calls INTEGER NOT NULL CHECK(calls >= 0),
  tok_in INTEGER NOT NULL CHECK(tok_in >= 0),
  tok_out INTEGER NOT NULL CHECK(tok_out >= 0),
  items INTEGER NOT NULL CHECK(items >= 0),
  progress INTEGER NOT NULL CHECK(progress >= 0),        -- tok_out already produced
  progress_ms INTEGER NOT NULL CHECK(progress_ms >= 0),  -- in how much time
  streaming INTEGER NOT NULL CHECK(streaming IN (0, 1))
) STRICT;
CREATE TABLE buckets(
  license_id TEXT PRIMARY KEY,
  level INTEGER NOT NULL,             -- thousandths of a call
  at INTEGER NOT NULL,                -- monotonic ms
  boot_id TEXT NOT NULL
) STRICT;
CREATE TABLE denials(
  log INTEGER NOT NULL,
  code TEXT NOT NULL,
  minute INTEGER NOT NULL,
  PRIMARY KEY(log, code)
) STRICT;
PRAGMA user_version=2;
