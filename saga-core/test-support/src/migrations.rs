//! The check of the migrations that a program embeds.

use sqlx::migrate::Migrator;
use std::{fmt::Write as _, path::Path};

/// Checks that `embedded` equals the migrations that sqlx reads from `folder`, and that their checksums are `pinned`.
/// A service does not start on a database whose history has other checksums, so a migration that has been applied never
/// changes.
pub async fn assert_embedded(embedded: &Migrator, folder: &str, pinned: &[&str]) {
    let files = Migrator::new(Path::new(folder))
        .await
        .expect("the folder has migrations");
    assert_eq!(
        lines(embedded),
        lines(&files),
        "embedded, then in the folder"
    );
    let checksums: Vec<String> = embedded.iter().map(|one| hex(&one.checksum)).collect();
    assert_eq!(checksums, pinned);
}

fn lines(migrator: &Migrator) -> Vec<String> {
    let line = |one: &sqlx::migrate::Migration| {
        format!(
            "{} {}, {:?}, outside a transaction: {}, checksum {}",
            one.version,
            one.description,
            one.migration_type,
            one.no_tx,
            hex(&one.checksum)
        )
    };
    migrator.iter().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}
