//! Measures how much Kafka has stored, by the size of its files.

use anyhow::{Context, Result};
use std::{fs, path::Path};

/// The suffix of files that hold records. Other files are indexes, which are preallocated.
const LOG_SUFFIX: &str = ".log";

/// Returns the bytes of records in a broker's data directory, including internal topics.
pub fn log_bytes(data_dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for partition in fs::read_dir(data_dir).with_context(|| data_dir.display().to_string())? {
        let partition = partition?;
        if !partition.file_type()?.is_dir() {
            continue;
        }
        // A segment may be removed while its size is read.
        for file in fs::read_dir(partition.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if file.file_name().to_string_lossy().ends_with(LOG_SUFFIX) {
                bytes += file.metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_records_are_counted() {
        let directory =
            std::env::temp_dir().join(format!("saga-bench-log-bytes-{}", std::process::id()));
        let partition = directory.join("topic-0");
        fs::create_dir_all(&partition).unwrap();
        fs::write(directory.join("meta.properties"), "12345").unwrap();
        fs::write(partition.join("00000000000000000000.log"), "123").unwrap();
        fs::write(partition.join("00000000000000000042.log"), "1234").unwrap();
        fs::write(partition.join("00000000000000000000.index"), "123456").unwrap();
        let found = log_bytes(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found.unwrap(), 7);
    }
}
