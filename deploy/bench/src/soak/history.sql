-- Sagas that have ended, as if they had done so long ago: copies of the last ones under ids of that time.
WITH source AS MATERIALIZED (
  SELECT row_number() OVER () - 1 AS number, last.*
  FROM (SELECT * FROM saga_history ORDER BY id DESC LIMIT $4) AS last),
aged AS (
  SELECT number, $2 + number * ($3 - $2) / $1 AS at_ms, md5(number::text || random()::text) AS noise
  FROM generate_series(0, $1 - 1) AS number)
INSERT INTO saga_history (id, definition, definition_version, definition_hash, status, business_key, correlation_id,
                          start_hash, started_at, ended_at, state)
SELECT (lpad(to_hex(at_ms), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid,
       definition, definition_version, definition_hash, status, business_key, correlation_id, start_hash,
       to_timestamp(at_ms / 1000.0), to_timestamp(at_ms / 1000.0) + (ended_at - started_at), state
FROM aged JOIN source ON source.number = aged.number % (SELECT count(*) FROM source)
