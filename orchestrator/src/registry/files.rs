//! Finds the definition files of a directory: every `*.yaml` and `*.yml`, in any case, except the hidden files and
//! backups that editors and file systems create beside them.

use super::error::RegistryError;
use std::path::{Path, PathBuf};
use tracing::debug;

/// The message about a directory without a definition.
pub const NONE_THERE: &str = "there is no definition in this directory: files whose names end in \
     .yaml or .yml are read, but no hidden ones and no backups";

/// Returns the paths of a directory's definitions, in name order.
pub fn definitions_in(directory: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let unreadable = |source| RegistryError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        match why_not_read(&path) {
            None => paths.push(path),
            Some(why) => {
                debug!(file = %path.display(), why, "this file is not read as a definition");
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads the text of a definition file.
pub fn text_of(path: &Path) -> Result<String, RegistryError> {
    std::fs::read_to_string(path).map_err(|source| RegistryError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn why_not_read(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let stem = name
        .strip_suffix(".yaml")
        .or_else(|| name.strip_suffix(".yml"));
    match stem {
        // `.hidden.yaml`, macOS' `._x.yaml`, Emacs' `.#x.yaml`, Vim's `.x.yaml.swp`, and the links in a mounted ConfigMap.
        _ if name.starts_with('.') => Some("its name begins with a dot"),
        _ if name.starts_with(['#', '~']) || name.ends_with(['#', '~']) => Some("it is a backup"),
        Some(stem) if stem.ends_with(['#', '~']) => Some("it is a backup"),
        None => Some("its name does not end in .yaml or .yml"),
        Some(_) if path.is_dir() => Some("it is a directory"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_test_support::logs;

    /// A temporary directory with the given empty files, which is removed on drop.
    struct Directory(PathBuf);

    impl Directory {
        fn with(test: &str, files: &[&str]) -> Self {
            let path = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            for file in files {
                std::fs::write(path.join(file), "").unwrap();
            }
            Self(path)
        }

        fn read(&self) -> Vec<String> {
            let names = definitions_in(&self.0).unwrap().into_iter();
            names
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const NOT_MEANT: [&str; 16] = [
        "._a.yaml",
        ".#a.yaml",
        ".hidden.yaml",
        ".a.yaml.swp",
        "..data",
        "a.yaml~",
        "a~.yaml",
        "~a.yaml",
        "#a.yaml#",
        "#a.yaml",
        "a.yaml.bak",
        "a.yaml.orig",
        "a.yaml.swp",
        "a.json",
        "README.md",
        "yaml",
    ];

    #[test]
    fn every_yaml_file_is_read_in_name_order_with_an_extension_of_any_case() {
        let directory = Directory::with(
            "meant",
            &["b.YAML", "a.yml", "c.Yml", "d.yaml", "e.v2.yaml"],
        );
        assert_eq!(
            directory.read(),
            ["a.yml", "b.YAML", "c.Yml", "d.yaml", "e.v2.yaml"]
        );
    }

    #[test]
    fn hidden_files_backups_and_directories_are_not_read() {
        let directory = Directory::with("not-meant", &NOT_MEANT);
        assert!(directory.read().is_empty());
        std::fs::write(directory.0.join("a.yaml"), "").unwrap();
        std::fs::create_dir(directory.0.join("older.yaml")).unwrap();
        assert_eq!(directory.read(), ["a.yaml"]);
    }

    #[test]
    fn a_file_that_is_not_read_is_logged_with_the_reason() {
        logs::capture("orchestrator=debug");
        let directory = Directory::with("logged", &[".#a.yaml", "a.yaml~", "a.json"]);
        directory.read();
        for (file, why) in [
            (".#a.yaml", "its name begins with a dot"),
            ("a.yaml~", "it is a backup"),
            ("a.json", "its name does not end in .yaml or .yml"),
        ] {
            let path = directory.0.join(file).display().to_string();
            let line = logs::line_with(&["DEBUG", "is not read as a definition", &path, why]);
            assert!(line.is_some(), "{file}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_refused() {
        let missing = definitions_in(Path::new("/no/such/directory")).unwrap_err();
        assert!(
            matches!(missing, RegistryError::Unreadable { .. }),
            "{missing}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_one_that_leads_nowhere_is_not_passed_over() {
        let directory = Directory::with("links", &["kept"]);
        let link = |name: &str, to: &str| {
            std::os::unix::fs::symlink(directory.0.join(to), directory.0.join(name)).unwrap();
        };
        link("good.yaml", "kept");
        link("lost.yaml", "gone");
        assert_eq!(directory.read(), ["good.yaml", "lost.yaml"]);
        assert!(text_of(&directory.0.join("good.yaml")).is_ok());
        assert!(text_of(&directory.0.join("lost.yaml")).is_err());
    }
}
