//! What the services' databases keep of ended sagas: read as templates, and written as copies.
//!
//! No table is named here. After real orders have ended, every row of every table that names one of their sagas is a
//! template; what the services keep is found by looking.

use super::{
    spread::Spread,
    template::{Known, Template, ids},
};
use crate::system::{System, database};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use saga_e2e::system::Service;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgPoolOptions};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};
use uuid::Uuid;

/// Sagas whose rows of a table are written in one transaction.
const SAGAS_A_TRANSACTION: u64 = 20_000;
/// Text that is sent at once.
const SENT_BYTES: usize = 1 << 20;

/// A table that keeps something of ended sagas.
#[derive(Clone, Debug)]
pub struct Table {
    pub service: Service,
    pub name: String,
    /// Before anything was loaded.
    pub rows_before: i64,
    /// Rows by number of the template.
    rows: Vec<Vec<Template>>,
}

/// What a table holds once history is loaded.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filled {
    pub database: String,
    pub table: String,
    /// Of history.
    pub rows: u64,
    /// With indexes.
    pub bytes: i64,
}

/// All tables in which these sagas, in the order of their ids, have left something.
pub async fn look(system: &System, sagas: &[Uuid], known: &Known) -> Result<Vec<Table>> {
    let numbers: BTreeMap<Uuid, usize> = sagas.iter().copied().zip(0..).collect();
    let mut tables = Vec::new();
    for service in Service::ALL {
        let mut connection = system.connect(&database(service)).await?;
        for name in names(&mut connection).await? {
            let text = everything(&mut connection, &name).await?;
            let mut table = Table {
                service,
                name,
                rows_before: 0,
                rows: vec![Vec::new(); sagas.len()],
            };
            for row in text.split_inclusive(|byte| *byte == b'\n') {
                table.rows_before += 1;
                if let Some(number) = ids(row).find_map(|id| numbers.get(&id)) {
                    table.rows[*number].push(Template::read(row, known));
                }
            }
            if table.rows.iter().any(|rows| !rows.is_empty()) {
                tables.push(table);
            }
        }
    }
    Ok(tables)
}

/// Of tables that are no partitions.
async fn names(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1",
    )
    .fetch_all(connection)
    .await
}

async fn everything(connection: &mut PgConnection, table: &str) -> Result<Vec<u8>> {
    let statement = format!("COPY (SELECT * FROM \"{table}\") TO STDOUT");
    let mut sent = connection.copy_out_raw(&statement).await?;
    let mut text = Vec::new();
    while let Some(bytes) = sent.try_next().await? {
        text.extend_from_slice(&bytes);
    }
    Ok(text)
}

impl Table {
    /// Of history, as a whole.
    pub fn rows_of(&self, spread: &Spread) -> u64 {
        let sagas_of = |template: u64| {
            spread.sagas / spread.templates + u64::from(template < spread.sagas % spread.templates)
        };
        let rows = self.rows.iter().zip(0..);
        rows.map(|(rows, template)| rows.len() as u64 * sagas_of(template))
            .sum()
    }

    /// In the order of sagas, as the services would have written them. Counts them in `done`.
    pub async fn fill(&self, url: &str, spread: &Spread, done: &AtomicU64) -> Result<()> {
        let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
        let mut connection = pool.acquire().await?;
        sqlx::raw_sql("SET synchronous_commit = off")
            .execute(&mut *connection)
            .await?;
        let mut from = 0;
        while from < spread.sagas {
            let to = spread.sagas.min(from + SAGAS_A_TRANSACTION);
            self.copy_in(&mut connection, spread, from..to)
                .await
                .with_context(|| format!("loading {} {}", self.service.name(), self.name))?;
            done.fetch_add(to - from, Ordering::Relaxed);
            from = to;
        }
        Ok(())
    }

    async fn copy_in(
        &self,
        connection: &mut PgConnection,
        spread: &Spread,
        sagas: std::ops::Range<u64>,
    ) -> Result<()> {
        let statement = format!("COPY \"{}\" FROM STDIN", self.name);
        let mut copy = connection.copy_in_raw(&statement).await?;
        let mut text = Vec::with_capacity(2 * SENT_BYTES);
        for saga in sagas {
            let change = spread.change(saga);
            for row in &self.rows[spread.template(saga)] {
                row.write(&change, &mut text);
            }
            if text.len() >= SENT_BYTES {
                copy.send(text.as_slice()).await?;
                text.clear();
            }
        }
        copy.send(text.as_slice()).await?;
        copy.finish().await?;
        Ok(())
    }

    pub async fn count(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let question = format!("SELECT count(*) FROM \"{}\"", self.name);
        sqlx::query_scalar(AssertSqlSafe(question))
            .fetch_one(connection)
            .await
    }

    pub async fn filled(&self, system: &System, spread: &Spread) -> Result<Filled> {
        let mut connection = system.connect(&database(self.service)).await?;
        let bytes = sqlx::query_scalar(
            "SELECT COALESCE((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::text::regclass)),
                             pg_total_relation_size($1::text::regclass))::bigint",
        )
        .bind(&self.name)
        .fetch_one(&mut connection)
        .await?;
        Ok(Filled {
            database: database(self.service),
            table: self.name.clone(),
            rows: self.rows_of(spread),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_history_are_those_of_its_sagas_templates() {
        let row = Template::read(b"row\n", &Known::default());
        let table = Table {
            service: Service::Order,
            name: "orders".to_owned(),
            rows_before: 0,
            rows: vec![vec![row.clone(); 3], Vec::new(), vec![row]],
        };
        let rows = |sagas| {
            table.rows_of(&Spread {
                sagas,
                templates: 3,
                days: 1,
                seed: 1,
            })
        };
        assert_eq!([1, 2, 3, 7].map(rows), [3, 3, 4, 11]);
    }
}
