PRAGMA journal_mode=WAL;
BEGIN TRANSACTION;
CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    last_seen REAL,
    runner_version TEXT,
    capabilities TEXT NOT NULL,
    type TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    health TEXT,
    health_at REAL,
    cordoned INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO "agents" VALUES('new',NULL,NULL,'["gpu"]','vm','{"zone": "a"}',NULL,NULL,1);
INSERT INTO "agents" VALUES('w1',1067.5,'1.2','["x", "y"]',NULL,'{}','{"cpu": 0.5}',1067.5,0);
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
, dialect TEXT NOT NULL DEFAULT 'jobs', retry_seconds INTEGER NOT NULL DEFAULT 0, not_before REAL, heartbeat_at REAL) STRICT;
INSERT INTO "jobs" VALUES(1,'done','ping','café',NULL,NULL,'',1000.0,60,5,'done','done',1000.0,1000.0,NULL,1,1,'w1','pong: é 日本',NULL,'jobs',0,NULL,1000.0);
INSERT INTO "jobs" VALUES(2,'failed','ping','p',NULL,NULL,'',1000.0,60,5,'failed','failed',1000.0,1000.0,NULL,1,1,'w1',NULL,'e','jobs',0,NULL,1000.0);
INSERT INTO "jobs" VALUES(3,'dead','ping','p',NULL,NULL,'',1001.0,60,1,'failed','dead',1001.0,1061.0,NULL,1,1,'w1',NULL,'lease lost by worker w1 on delivery 1 of 1','jobs',0,NULL,1001.0);
INSERT INTO "jobs" VALUES(4,'cancelled','ping','p',NULL,NULL,'',1061.0,60,5,'failed','cancelled',NULL,1061.0,NULL,0,0,NULL,NULL,'not wanted','jobs',0,NULL,NULL);
INSERT INTO "jobs" VALUES(5,'put off','ping','p',NULL,NULL,'',1061.0,60,5,'queued',NULL,NULL,NULL,NULL,1,1,NULL,NULL,'try again','tasks',120,1181.0,NULL);
INSERT INTO "jobs" VALUES(6,'given back','ping','p','{"caps": ["x"]}',NULL,'x',1061.0,60,5,'queued',NULL,NULL,NULL,NULL,1,0,NULL,NULL,NULL,'jobs',0,NULL,NULL);
INSERT INTO "jobs" VALUES(7,'running','ping','p',NULL,NULL,'',1061.0,60,5,'running',NULL,1061.0,NULL,1121.0,1,1,'w1',NULL,NULL,'jobs',0,NULL,1061.0);
INSERT INTO "jobs" VALUES(8,'running nameless','ping','p',NULL,NULL,'',1066.5,60,5,'running',NULL,1066.5,NULL,1127.5,1,1,NULL,NULL,NULL,'hub',0,NULL,1067.5);
INSERT INTO "jobs" VALUES(9,'queued','ping','p','{"caps": ["a"]}',NULL,'a',1067.5,60,5,'queued',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,'jobs',0,NULL,NULL);
INSERT INTO "jobs" VALUES(10,'for an agent','exec','',NULL,'w2','',1067.5,60,5,'queued',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,'hub',0,NULL,NULL);
CREATE TABLE messages (
    n INTEGER PRIMARY KEY,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    id TEXT NOT NULL,
    envelope TEXT NOT NULL,
    received INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    UNIQUE (recipient, sender, id)
) STRICT;
INSERT INTO "messages" VALUES(1,'w1','new','m1','',1,1067.5);
INSERT INTO "messages" VALUES(2,'w1','new','m2','{"text":"waiting é"}',0,1067.5);
CREATE TABLE tokens (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;
INSERT INTO "tokens" VALUES(1,'new','worker',X'C386D8E8D07342F2E39E189C8E6C57BB205BB373FE4E3A6F69404A8BB767B417',1067.5);
INSERT INTO "tokens" VALUES(2,'w1','worker',X'68E4D75D23E31BD23F43266F769567B2588D9F3D3010FA7CACAE7EFD6F5CE0AD',1067.5);
INSERT INTO "tokens" VALUES(3,'ui','bot',X'AC7EDB97166F7D682720ACA18FEA15CDD5D15242DAD38297A48633A806236C4F',1067.5);
INSERT INTO "tokens" VALUES(4,'root','admin',X'1FB497D126F59B0448178D04F0A33CA8FF9460874D90018821D3F5872BD9A735',1067.5);
CREATE INDEX jobs_running ON jobs (lease_until) WHERE status = 'running';
CREATE INDEX jobs_failed ON jobs (status) WHERE status = 'failed';
CREATE INDEX jobs_of_agent ON jobs (coalesce(worker, agent)) WHERE coalesce(worker, agent) IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (agent, needs, not_before) WHERE status = 'queued';
CREATE INDEX jobs_put_off ON jobs (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX jobs_of_state ON jobs (coalesce(outcome, status));
CREATE INDEX jobs_of_command ON jobs (command);
CREATE INDEX messages_of_recipient ON messages (recipient, received, n);
CREATE INDEX messages_by_age ON messages (received, created_at);
COMMIT;
PRAGMA application_id=1868786807;
PRAGMA user_version=2;
