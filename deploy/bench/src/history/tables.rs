//! The tables in which the services keep ended sagas: their rows are read as templates, and written as copies.
//!
//! No table is named here. After real orders have ended, every row of every table that names one of their sagas is a
//! template, so all tables that the services use are found.

use super::{
    spread::Spread,
    template::{Known, Template, ids},
};
use crate::{
    report::{Row, row},
    system::{System, database},
};
use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use saga_harness::system::Service;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};
use uuid::Uuid;

/// The number of sagas whose rows of a table are written in one transaction.
const SAGAS_A_TRANSACTION: u64 = 20_000;
/// How many bytes of rows are sent at once.
const SENT_BYTES: usize = 1 << 20;

/// A table that has rows of ended sagas.
#[derive(Clone, Debug)]
pub struct Table {
    pub service: Service,
    name: String,
    /// The columns that are written, quoted. Postgres computes the generated ones.
    columns: String,
    /// The number of rows before anything was loaded.
    rows_before: i64,
    /// The rows of each template, by its number.
    rows: Vec<Vec<Template>>,
}

/// Finds all tables with rows that name one of these sagas. The sagas must be in the order of their ids.
pub async fn look(system: &System, sagas: &[Uuid], known: &Known) -> Result<Vec<Table>> {
    let numbers: BTreeMap<Uuid, usize> = sagas.iter().copied().zip(0..).collect();
    let mut tables = Vec::new();
    for service in Service::ALL {
        let mut connection = system.database_of(service).await?;
        for (name, columns) in names(&mut connection).await? {
            let text = everything(&mut connection, &name, &columns).await?;
            let mut table = Table {
                service,
                name,
                columns,
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

/// Returns the names of all tables that are not partitions, each with its columns that are not generated.
async fn names(connection: &mut PgConnection) -> Result<Vec<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT relname::text, string_agg(quote_ident(attname), ', ' ORDER BY attnum)
         FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
         GROUP BY relname ORDER BY 1",
    )
    .fetch_all(connection)
    .await
}

async fn everything(connection: &mut PgConnection, table: &str, columns: &str) -> Result<Vec<u8>> {
    let statement = format!("COPY (SELECT {columns} FROM \"{table}\") TO STDOUT");
    let mut sent = connection.copy_out_raw(&statement).await?;
    let mut text = Vec::new();
    while let Some(bytes) = sent.try_next().await? {
        text.extend_from_slice(&bytes);
    }
    Ok(text)
}

impl Table {
    /// Returns the number of rows that all of history has in this table.
    pub fn rows_of(&self, spread: &Spread) -> u64 {
        let sagas_of = |template: u64| {
            spread.sagas / spread.templates + u64::from(template < spread.sagas % spread.templates)
        };
        let rows = self.rows.iter().zip(0..);
        rows.map(|(rows, template)| rows.len() as u64 * sagas_of(template))
            .sum()
    }

    /// Writes the rows in the order of sagas, as the services would have. Adds the number of written sagas to `done`.
    pub async fn fill(&self, url: &str, spread: &Spread, done: &AtomicU64) -> Result<()> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql("SET synchronous_commit = off")
            .execute(&mut connection)
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
        let statement = format!("COPY \"{}\" ({}) FROM STDIN", self.name, self.columns);
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

    /// Checks that all rows of history are there, and returns their number and the size of the table with indexes.
    pub async fn describe(&self, system: &System, spread: &Spread) -> Result<Row> {
        let name = format!("{}.{}", database(self.service), self.name);
        let mut connection = system.database_of(self.service).await?;
        let question = format!(
            "SELECT (SELECT count(*) FROM \"{}\"),
                    COALESCE((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::text::regclass)),
                             pg_total_relation_size($1::text::regclass))::bigint",
            self.name
        );
        let (rows, bytes): (i64, i64) = sqlx::query_as(AssertSqlSafe(question))
            .bind(&self.name)
            .fetch_one(&mut connection)
            .await?;
        let (found, expected) = (rows - self.rows_before, self.rows_of(spread));
        ensure!(
            found.unsigned_abs() == expected,
            "{name}: {expected} rows were loaded, {found} are there"
        );
        Ok(row![
            name,
            expected,
            expected as f64 / spread.sagas as f64,
            bytes as f64 / f64::from(1 << 20),
        ])
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
            columns: "id".to_owned(),
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
