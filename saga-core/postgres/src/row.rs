//! Decodes rows of Postgres into structs.

/// Implements sqlx's `FromRow` for a struct whose columns have the names of its fields, which are listed.
///
/// sqlx derives the same. Its macros are not used, because they would compile sqlx, Tokio and TLS a second time, for
/// the host.
#[macro_export]
macro_rules! from_row {
    ($row:ident: $($column:ident),+) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($column: sqlx::Row::try_get(row, stringify!($column))?),+ })
            }
        }
    };
}
