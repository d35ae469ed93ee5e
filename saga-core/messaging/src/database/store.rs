//! The statements on the database's notes. None of them waits longer than a connection may be silent.

use super::place::NotedOffset;
use crate::log::TopicPartition;
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Returns the database's id and ticks.
pub(super) async fn identity(pool: &PgPool) -> sqlx::Result<(Uuid, i64)> {
    limited(sqlx::query_as("SELECT id, ticks FROM database_identity").fetch_one(pool)).await
}

/// Returns the group's offsets at the last tick.
pub(super) async fn consumed(
    pool: &PgPool,
    group: &str,
    topic: &str,
) -> sqlx::Result<BTreeMap<i32, NotedOffset>> {
    const QUERY: &str = "SELECT partition, next_offset, topic_id FROM consumed WHERE group_name = $1 AND topic = $2";
    let rows = sqlx::query_as(QUERY)
        .bind(group)
        .bind(topic)
        .fetch_all(pool);
    let rows: Vec<(i32, i64, String)> = limited(rows).await?;
    let known = rows.into_iter().map(|(partition, next_offset, topic_id)| {
        let known = NotedOffset {
            next_offset,
            topic_id,
        };
        (partition, known)
    });
    Ok(known.collect())
}

/// Writes the group's offsets in partitions of which the database has no note: the records below them were handled in
/// another database.
pub(super) async fn begin(
    pool: &PgPool,
    group: &str,
    topic: &str,
    topic_id: &str,
    next: &BTreeMap<i32, i64>,
) -> sqlx::Result<()> {
    const QUERY: &str = "
        INSERT INTO consumed (group_name, topic, partition, topic_id, next_offset)
        SELECT $1, $2, place.partition, $3, place.next_offset
        FROM UNNEST($4::integer[], $5::bigint[]) AS place (partition, next_offset)
        ON CONFLICT (group_name, topic, partition) DO NOTHING";
    let written = sqlx::query(QUERY)
        .bind(group)
        .bind(topic)
        .bind(topic_id)
        .bind(next.keys().copied().collect::<Vec<i32>>())
        .bind(next.values().copied().collect::<Vec<i64>>())
        .execute(pool);
    limited(written).await.map(|_| ())
}

/// Raises the ticks and writes the group's offsets. Returns `None` if the database was replaced: its ticks are below
/// `tick`, or it has another id. The row of the ticks is locked first, so processes take turns.
pub(super) async fn tick(
    pool: &PgPool,
    (id, tick): (Uuid, i64),
    group: &str,
    done: &[(TopicPartition, String, i64)],
) -> sqlx::Result<Option<i64>> {
    const QUERY: &str = "
        WITH ticked AS (
            UPDATE database_identity SET ticks = ticks + 1 WHERE id = $1 AND ticks >= $2 RETURNING ticks
        ), written AS (
            INSERT INTO consumed (group_name, topic, partition, topic_id, next_offset)
            SELECT $3, place.topic, place.partition, place.topic_id, place.next_offset
            FROM ticked, UNNEST($4::text[], $5::integer[], $6::text[], $7::bigint[])
                AS place (topic, partition, topic_id, next_offset)
            ON CONFLICT (group_name, topic, partition)
            DO UPDATE SET topic_id = EXCLUDED.topic_id, next_offset = EXCLUDED.next_offset
        )
        SELECT ticks FROM ticked";
    let topics: Vec<&str> = done
        .iter()
        .map(|(place, ..)| place.topic.as_str())
        .collect();
    let partitions: Vec<i32> = done.iter().map(|(place, ..)| place.partition).collect();
    let topic_ids: Vec<&str> = done.iter().map(|(_, id, _)| id.as_str()).collect();
    let offsets: Vec<i64> = done.iter().map(|(.., next)| *next).collect();
    let ticked = sqlx::query_scalar(QUERY)
        .bind(id)
        .bind(tick)
        .bind(group)
        .bind(topics)
        .bind(partitions)
        .bind(topic_ids)
        .bind(offsets)
        .fetch_optional(pool);
    limited(ticked).await
}
