BEGIN TRANSACTION;
CREATE TABLE charges (
  number INTEGER PRIMARY KEY,
  cohort TEXT NOT NULL,
  run TEXT NOT NULL,
  round INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  mechanism TEXT NOT NULL,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  UNIQUE (cohort, run, round, attempt)
) STRICT;
INSERT INTO "charges" VALUES(1,'patients','brücke',1,1,'{"clip_norm": 1.0, "divisor": 64.0, "noise_multiplier": 20.0, "sampling_rate": 1.0, "steps": 1, "unit": "patient"}','0000000000000000000000000000000000000000000000000000000000000000','8ab733a9e7a09ecce40181154b8b4019b80c85526df538d69bc62d11e14e2f00');
INSERT INTO "charges" VALUES(2,'patients','brücke',2,1,'{"clip_norm": 1.0, "divisor": 64.0, "noise_multiplier": 20.0, "sampling_rate": 1.0, "steps": 1, "unit": "patient"}','8ab733a9e7a09ecce40181154b8b4019b80c85526df538d69bc62d11e14e2f00','aea77b42e5e9dc8072a9ecfdef7005ef91b5a34919602fb5cec571d55ac27223');
INSERT INTO "charges" VALUES(3,'patients','brücke',2,2,'{"clip_norm": 1.0, "divisor": 64.0, "noise_multiplier": 20.0, "sampling_rate": 1.0, "steps": 1, "unit": "patient"}','aea77b42e5e9dc8072a9ecfdef7005ef91b5a34919602fb5cec571d55ac27223','59ba2186d23f993946021d822698d16479fa8c781ed69d198e176ce7c6c34044');
INSERT INTO "charges" VALUES(4,'others','second-"run"',1,1,'{"clip_norm": 1.0, "divisor": 64.0, "noise_multiplier": 3.1, "sampling_rate": 0.1, "steps": 12, "unit": "patient"}','59ba2186d23f993946021d822698d16479fa8c781ed69d198e176ce7c6c34044','bab0222e7ca1e5ee59008ad11e06455852b45f322819a4d869b30d415256f275');
CREATE TRIGGER no_update BEFORE UPDATE ON charges
BEGIN SELECT RAISE(ABORT, 'a charge is never changed'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON charges
BEGIN SELECT RAISE(ABORT, 'a charge is never removed'); END;
COMMIT;
