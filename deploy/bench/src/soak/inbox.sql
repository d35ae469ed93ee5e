-- What became of commands, as if they had come long ago: copies of the last ones under ids of that time.
WITH source AS MATERIALIZED (
  SELECT row_number() OVER () - 1 AS number, last.*
  FROM (SELECT * FROM inbox ORDER BY saga_id DESC LIMIT $4) AS last),
aged AS (
  SELECT number, $2 + number * ($3 - $2) / $1 AS at_ms, md5(number::text || random()::text) AS noise
  FROM generate_series(0, $1 - 1) AS number)
INSERT INTO inbox (saga_id, step, direction, mark, reply, handled_at)
SELECT (lpad(to_hex(at_ms), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid,
       step, direction, mark, reply, to_timestamp(at_ms / 1000.0)
FROM aged JOIN source ON source.number = aged.number % (SELECT count(*) FROM source)
