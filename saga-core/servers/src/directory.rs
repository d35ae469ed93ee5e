//! A server's data directory: it has one owner at a time, secrets that only the owner can read, and a place that the
//! server's account can reach.

use crate::{error::ServerError, process::Account};
use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use uuid::Uuid;

const LOCK: &str = "instance.lock";
/// The directory for a server's files if root's own directory is closed to the server's account.
const OPEN_STATE_DIR: &str = "/var/lib/saga";
const OPEN_CACHE_DIR: &str = "/var/cache/saga";

/// A lock that a process holds while it uses a data directory. The kernel releases it when the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory if it is missing, and locks it. Fails if another living process holds the lock.
    pub fn acquire(directory: &Path) -> Result<Self, ServerError> {
        fs::create_dir_all(directory).map_err(ServerError::io("make", directory))?;
        let path = directory.join(LOCK);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(ServerError::io("open", &path))?;
        if !lock_soon(&file) {
            let mut owner = String::new();
            file.read_to_string(&mut owner)
                .map_err(ServerError::io("read", &path))?;
            let owner = owner.trim().to_owned();
            return Err(ServerError::InUse {
                path: directory.to_owned(),
                owner,
            });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(ServerError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Tries for a moment: a process that was just killed holds its lock until the kernel has removed the process.
fn lock_soon(file: &File) -> bool {
    const ATTEMPTS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(25);
    (0..ATTEMPTS).any(|attempt| {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        file.try_lock().is_ok()
    })
}

/// Reads the secret in `path`, or makes a secret of 244 random bits that only the owner of the file can read.
pub fn read_or_make_secret(path: &Path) -> Result<String, ServerError> {
    match fs::read_to_string(path) {
        Ok(secret) => return Ok(secret.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(ServerError::io("read", path)(error)),
    }
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    // The file is written under another name and renamed, so that a crash leaves no empty secret.
    let new = path.with_extension("new");
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(secret.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .map_err(ServerError::io("write", path))?;
    Ok(secret)
}

/// Makes sure that the directory exists and that only `account` may enter it.
pub(crate) fn make_private(path: &Path, account: Option<Account>) -> Result<(), ServerError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .and_then(|()| match account {
            Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        })
        .map_err(ServerError::io("prepare", path))
}

/// Returns the directory for the files of a server that runs as `account`. It is `home`, unless root asked for a place
/// that the account cannot reach, such as one below `/root`. Then it is a separate directory, to which a link in `home`
/// points.
pub(crate) fn reachable_home(
    home: &Path,
    account: Option<Account>,
) -> Result<PathBuf, ServerError> {
    let Some(account) = account else {
        return Ok(home.to_owned());
    };
    if can_reach(home, account)? {
        return Ok(home.to_owned());
    }
    let link = home.join("elsewhere");
    if let Ok(target) = fs::read_link(&link)
        && target.is_dir()
    {
        return Ok(target);
    }
    let target = Path::new(OPEN_STATE_DIR).join(Uuid::new_v4().simple().to_string());
    fs::create_dir_all(&target).map_err(ServerError::io("make", &target))?;
    if link.is_symlink() {
        fs::remove_file(&link).map_err(ServerError::io("remove", &link))?;
    }
    symlink(&target, &link).map_err(ServerError::io("make", &link))?;
    Ok(target)
}

/// Returns true if `account` may pass through every directory on the way into `path`.
fn can_reach(path: &Path, account: Account) -> Result<bool, ServerError> {
    let path = path
        .canonicalize()
        .map_err(ServerError::io("resolve", path))?;
    for directory in path.ancestors() {
        let metadata = fs::metadata(directory).map_err(ServerError::io("inspect", directory))?;
        let pass = if metadata.uid() == account.uid {
            0o100
        } else if metadata.gid() == account.gid {
            0o010
        } else {
            0o001
        };
        if metadata.mode() & pass == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the cache for fetched files: `asked_for`, else `$XDG_CACHE_HOME/saga` or `~/.cache/saga`. For root it is a
/// directory that a server's account can reach.
pub(crate) fn cache(
    asked_for: Option<&Path>,
    account: Option<Account>,
) -> Result<PathBuf, ServerError> {
    let base = |variable: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = asked_for
        .map(Path::to_owned)
        .or_else(|| base("XDG_CACHE_HOME").map(|path| path.join("saga")))
        .or_else(|| base("HOME").map(|path| path.join(".cache/saga")))
        .unwrap_or_else(|| std::env::temp_dir().join("saga-cache"));
    fs::create_dir_all(&cache).map_err(ServerError::io("make", &cache))?;
    match account {
        Some(account) if !can_reach(&cache, account)? => {
            let open = PathBuf::from(OPEN_CACHE_DIR);
            fs::create_dir_all(&open).map_err(ServerError::io("make", &open))?;
            Ok(open)
        }
        Some(_) | None => Ok(cache),
    }
}

/// Returns the last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Opens a log to append to. A log that has grown large is removed first.
pub(crate) fn open_log(path: &Path) -> Result<File, ServerError> {
    const LARGE_BYTES: u64 = 8 << 20;
    let large = fs::metadata(path).is_ok_and(|metadata| metadata.len() > LARGE_BYTES);
    if large {
        fs::remove_file(path).map_err(ServerError::io("remove", path))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(ServerError::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("saga-directory-{name}-{}", Uuid::new_v4()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn second_lock_on_a_directory_names_the_owner() {
        let directory = scratch("lock");
        let first = DirectoryLock::acquire(&directory).unwrap();
        let error = DirectoryLock::acquire(&directory).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("already in use by process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DirectoryLock::acquire(&directory).unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn secret_is_kept_and_private() {
        let directory = scratch("secret");
        let path = directory.join("superuser.password");
        let secret = read_or_make_secret(&path).unwrap();
        assert_eq!(secret.len(), 64);
        assert_eq!(read_or_make_secret(&path).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn closed_parent_is_out_of_reach_for_another_account() {
        let directory = scratch("reach");
        let stranger = Account {
            uid: 4_242,
            gid: 4_242,
        };
        let inner = directory.join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(can_reach(&inner, stranger).unwrap());
        make_private(&directory.join("closed"), None).unwrap();
        assert!(!can_reach(&inner, stranger).unwrap());
        fs::remove_dir_all(directory).unwrap();
    }
}
