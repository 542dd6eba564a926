PRAGMA journal_mode=WAL;
BEGIN TRANSACTION;
CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    last_seen REAL NOT NULL,
    runner_version TEXT,
    capabilities TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "agents" VALUES('w1',1066.5,'1.2','["x", "y"]');
CREATE TABLE jobs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    payload TEXT NOT NULL,
    requires TEXT,
    agent TEXT,
    needs TEXT NOT NULL,
    created_at REAL NOT NULL,
    lease_seconds INTEGER NOT NULL,
    max_deliveries INTEGER NOT NULL,
    status TEXT NOT NULL,
    outcome TEXT,
    started_at REAL,
    finished_at REAL,
    lease_until REAL,
    lease_epoch INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    worker TEXT,
    result TEXT,
    error TEXT
) STRICT;
INSERT INTO "jobs" VALUES(1,'done','ping','café',NULL,NULL,'',1000.0,60,5,'done','done',1000.0,1000.0,NULL,1,1,'w1','pong: é 日本',NULL);
INSERT INTO "jobs" VALUES(2,'failed','ping','p',NULL,NULL,'',1000.0,60,5,'failed','failed',1000.0,1000.0,NULL,1,1,'w1',NULL,'e');
INSERT INTO "jobs" VALUES(3,'dead','ping','p',NULL,NULL,'',1001.0,60,1,'failed','dead',1001.0,1061.0,NULL,1,1,'w1',NULL,'lease lost by worker w1 on delivery 1 of 1');
INSERT INTO "jobs" VALUES(4,'given back','ping','p','{"caps": ["x"]}',NULL,'x',1061.0,60,5,'queued',NULL,NULL,NULL,NULL,1,0,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(5,'running','ping','p',NULL,NULL,'',1061.0,60,5,'running',NULL,1061.0,NULL,1121.0,1,1,'w1',NULL,NULL);
INSERT INTO "jobs" VALUES(6,'running nameless','ping','p',NULL,NULL,'',1066.5,60,5,'running',NULL,1066.5,NULL,1126.5,1,1,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(7,'queued','ping','p','{"caps": ["a"]}',NULL,'a',1066.5,60,5,'queued',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(8,'for an agent','ping','',NULL,'w2','',1066.5,60,5,'queued',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL);
CREATE TABLE tokens (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;
INSERT INTO "tokens" VALUES(1,'w1','worker',X'C386D8E8D07342F2E39E189C8E6C57BB205BB373FE4E3A6F69404A8BB767B417',1066.5);
INSERT INTO "tokens" VALUES(2,'ui','bot',X'68E4D75D23E31BD23F43266F769567B2588D9F3D3010FA7CACAE7EFD6F5CE0AD',1066.5);
CREATE INDEX jobs_queued ON jobs (agent, needs) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (lease_until) WHERE status = 'running';
CREATE INDEX jobs_failed ON jobs (status) WHERE status = 'failed';
CREATE INDEX jobs_of_agent ON jobs (coalesce(worker, agent)) WHERE coalesce(worker, agent) IS NOT NULL;
COMMIT;
PRAGMA application_id=1868786807;
PRAGMA user_version=1;
