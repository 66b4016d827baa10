//! Which kind of file system a directory is on.
//!
//! SQLite's WAL needs shared memory and locks that work; network file systems have neither. The kernel's own list of mounts
//! says what a directory is on, without a system call that needs `unsafe`. Where there is no such list, nothing is refused.

use std::{fs, path::Path};

const NETWORK: [&str; 22] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "coda",
    "ncpfs",
    "davfs",
    "beegfs",
    "gpfs",
    "ocfs2",
    "gfs2",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.cephfs",
];

/// The type of the network file system that `dir` is on, if it is on one.
pub(crate) fn network(dir: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let dir = fs::canonicalize(dir).ok()?;
    kind(&mounts, &dir).filter(|kind| NETWORK.contains(kind)).map(str::to_owned)
}

/// The type of the file system that `dir` is on: that of the longest mount point it begins with, the latest of equals.
fn kind<'a>(mountinfo: &'a str, dir: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4) else { continue };
        let Some(kind) = fields.skip_while(|field| *field != "-").nth(1) else { continue };
        let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        if dir.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_point_counts() {
        let mounts = "\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 24 0:40 / /srv rw - nfs4 nas:/srv rw
31 30 8:2 / /srv/my\\040data rw - xfs /dev/sdb1 rw
";
        let on = |dir: &str| kind(mounts, Path::new(dir));
        assert_eq!(on("/var/lib/logwarden"), Some("ext4"));
        assert_eq!(on("/srv/logwarden"), Some("nfs4"));
        assert_eq!(on("/srvx"), Some("ext4"));
        assert_eq!(on("/srv/my data/logwarden"), Some("xfs"));
        assert_eq!(kind("nonsense\n\n1 2 3", Path::new("/")), None);
    }
}
