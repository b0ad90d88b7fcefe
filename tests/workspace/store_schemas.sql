-- Stores of every schema, with a row in every table. The statements below `-- schema N` upgrade schema N - 1 to N.
-- Never change these statements: users have such stores.

-- schema 1
CREATE TABLE schema_version (version INTEGER, applied TIMESTAMP);
CREATE TABLE file_hashes (
    path VARCHAR PRIMARY KEY, size BIGINT, mtime_ns BIGINT, inode BIGINT, sha256 VARCHAR);
CREATE TABLE artifacts (
    stage VARCHAR, key VARCHAR, inputs VARCHAR, outputs VARCHAR, created TIMESTAMP,
    PRIMARY KEY (stage, key));
CREATE TABLE examples (
    task_key VARCHAR, task VARCHAR, number INTEGER, file VARCHAR, line INTEGER,
    hash VARCHAR, token_hash VARCHAR, text VARCHAR, spans INTEGER[],
    input_ids INTEGER[], labels INTEGER[], completion_tokens INTEGER,
    truncated BOOLEAN, left_out VARCHAR);
CREATE TABLE gradients (
    set_key VARCHAR, token_hash VARCHAR, loss DOUBLE, gradient FLOAT[]);
CREATE TABLE affinities (
    estimate_key VARCHAR, target VARCHAR, task VARCHAR, affinity DOUBLE, standard_error DOUBLE);
CREATE TABLE estimates (
    estimate_key VARCHAR, target VARCHAR, subset VARCHAR, loss DOUBLE, low DOUBLE, high DOUBLE,
    created TIMESTAMP);
CREATE TABLE selections (
    key VARCHAR PRIMARY KEY, name VARCHAR, target VARCHAR, method VARCHAR, loss DOUBLE,
    manifest VARCHAR, created TIMESTAMP);
INSERT INTO file_hashes VALUES ('tasks/a.jsonl', 10, 20, 30, 'sha');
INSERT INTO artifacts VALUES ('task', 't', '{"name": "a"}', '{"rows": [1]}', '2026-11-01 12:00:00');
INSERT INTO examples VALUES
    ('t', 'a', 0, 'a.jsonl', 1, 'h', 'th', 'one two', [4, 7], [5, 6, 7], [-100, 6, 7], 2, false, NULL);
INSERT INTO gradients VALUES ('set', 'th', 1.5, [0.5, -0.25]);
INSERT INTO affinities VALUES ('e', 'target', 'a', 0.125, 0.5);
INSERT INTO estimates VALUES ('e', 'target', '["a"]', 1.25, 1.0, 1.5, '2026-11-01 12:00:00');
INSERT INTO selections VALUES ('s', 'best', 'target', 'forward', 1.25, '{}', '2026-11-01 12:00:00');
INSERT INTO schema_version VALUES (1, '2026-11-01 12:00:00');

-- schema 2
CREATE TABLE edits (
    session VARCHAR, number INTEGER, target VARCHAR, kind VARCHAR, label VARCHAR, changes VARCHAR,
    loss DOUBLE, made TIMESTAMP, PRIMARY KEY (session, number));
INSERT INTO edits VALUES ('x', 0, 'target', 'toggle', 'a in', '{"a": [0, 1]}', 1.25, '2026-11-01 12:00:00');
INSERT INTO schema_version VALUES (2, '2026-11-01 12:00:00');

-- schema 3
CREATE TABLE statistics (
    number BIGINT, set_key VARCHAR, content VARCHAR, weight DOUBLE, examples BIGINT, pull BLOB);
CREATE TABLE triangles (number BIGINT, piece INTEGER, numbers BLOB);
INSERT INTO statistics VALUES (0, 'set', 'c', 2.0, 1, '\x00\x00\x00\x00\x00\x00\xF0\x3F\x00\x00\x00\x00\x00\x00\x00\x40'::BLOB);
INSERT INTO triangles VALUES (0, 0, '\x00\x00\x80\x3F\x00\x00\x00\x40\x00\x00\x40\x40'::BLOB);
INSERT INTO schema_version VALUES (3, '2026-11-01 12:00:00');

-- schema 4
CREATE TABLE measurements (
    recipe VARCHAR, target VARCHAR, subset VARCHAR, seed BIGINT, loss DOUBLE, seconds DOUBLE, made TIMESTAMP,
    PRIMARY KEY (recipe, subset, seed));
INSERT INTO measurements VALUES ('r', 'target', '{"a": "c"}', 1, 1.75, 3.0, '2026-11-01 12:00:00');
INSERT INTO schema_version VALUES (4, '2026-11-01 12:00:00');

-- schema 5
CREATE TABLE segment_sums (
    set_key VARCHAR, content VARCHAR, weight DOUBLE, examples BIGINT, rest DOUBLE, gradient_sum BLOB, curvature BLOB);
CREATE TABLE arrays (key VARCHAR, name VARCHAR, shape INTEGER[], numbers BLOB, PRIMARY KEY (key, name));
INSERT INTO segment_sums VALUES ('set', 'c', 2.0, 1, 0.5, '\x00\x00\x80\x3F'::BLOB, '\x00\x00\x80\x3F'::BLOB);
INSERT INTO arrays VALUES ('run', 'basis', [1, 1], '\x00\x00\x80\x3F'::BLOB);
INSERT INTO schema_version VALUES (5, '2026-11-01 12:00:00');

-- schema 6
CREATE TABLE metric_values (
    recipe VARCHAR, target VARCHAR, subset VARCHAR, seed BIGINT, metric VARCHAR, part VARCHAR, version VARCHAR,
    value DOUBLE, standard_error DOUBLE, examples BIGINT, higher_is_better BOOLEAN, made TIMESTAMP,
    PRIMARY KEY (recipe, subset, seed, metric, part, version));
INSERT INTO metric_values VALUES ('r', 'target', '{"a": "c"}', 1, 'exact_match', 'validation', 'v', 0.5, 0.25, 4, true, '2026-11-28 12:00:00');
INSERT INTO schema_version VALUES (6, '2026-11-28 12:00:00');

-- schema 7
ALTER TABLE file_hashes ADD COLUMN changed_ns BIGINT DEFAULT 0;
INSERT INTO schema_version VALUES (7, '2026-11-01 12:00:00');

-- schema 8
CREATE TABLE run_details (
    recipe VARCHAR, subset VARCHAR, seed BIGINT, loss_quarter DOUBLE, loss_half DOUBLE, tokens BIGINT,
    peak_bytes BIGINT, machine VARCHAR, task_losses VARCHAR, estimated_before DOUBLE,
    estimated_before_low DOUBLE, estimated_before_high DOUBLE, calibrated_on INTEGER,
    PRIMARY KEY (recipe, subset, seed));
INSERT INTO run_details VALUES
    ('r', '{"a": "c"}', 1, 2.5, 2.0, 900, 1000000, 'm', '{}', 1.8, 1.6, 2.0, 9);
INSERT INTO schema_version VALUES (8, '2026-11-01 12:00:00');

-- schema 9
CREATE TABLE notes (
    kind VARCHAR, name VARCHAR, sha256 VARCHAR, text VARCHAR, made TIMESTAMP, PRIMARY KEY (kind, name, sha256));
INSERT INTO notes VALUES ('task', 'a', '', 'read this', '2026-11-01 12:00:00');
INSERT INTO schema_version VALUES (9, '2026-11-01 12:00:00');

-- schema 10
CREATE TABLE deleted_selections (
    key VARCHAR PRIMARY KEY, name VARCHAR, target VARCHAR, method VARCHAR, loss DOUBLE,
    manifest VARCHAR, created TIMESTAMP, deleted TIMESTAMP);
INSERT INTO deleted_selections VALUES
    ('k2', 'old', 't', 'forward', 1.5, '{}', '2026-11-01 12:00:00', '2026-11-02 12:00:00');
INSERT INTO schema_version VALUES (10, '2026-11-01 12:00:00');
