//! What was stored yesterday is understood today: ids are immutable, and so is what a version of the state means.
//!
//! When this is red, the scanner or the form of the state has changed: alerts that were told would be told again under new
//! ids. Undo it, or raise `State::VERSION`, translate old leaves in `Miner::restore` by their examples, and keep this file.

use logwarden_templates::{Config, LeafId, Miner, State};

use crate::fold;

/// Written by version 1 from `LINES`.
const VERSION_1: &str = include_str!("../state/1.json");

const LINES: [&str; 12] = [
    "Nov 21 04:00:00 web-1 sshd[811]: Failed password for invalid user admin from 203.0.113.7 port 4711 ssh2",
    "<86>1 2026-11-21T04:00:00Z web-1 sudo 9 - - alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls",
    r#"203.0.113.9 - - [21/Nov/2026:04:00:00 +0000] "GET /cart/17 HTTP/1.1" 502 310 "-" "curl/8.5""#,
    r#"{"time":"2026-11-21T04:00:00Z","level":"error","msg":"cannot pay","order":17,"reason":"card declined"}"#,
    "time=2026-11-21T04:00:00Z level=warn msg=\"slow query\" took=712ms table=orders",
    "2026-11-21 04:00:00,123 ERROR [worker-7] org.example.Mail: java.net.ConnectException: Connection refused",
    "[   12.345678] EXT4-fs error (device sda1): ext4_lookup:1851: inode #131: comm ls: deleted inode referenced",
    "Nov 21 04:00:01 web-1 app[7]: mailbox of alice was moved to the new disk",
    "Nov 21 04:00:01 web-1 app[7]: mailbox of bob was moved to the new disk",
    "Nov 21 04:00:01 web-1 app[7]: mailbox of carol was moved to the new disk",
    "Nov 21 04:00:01 web-1 app[7]: mailbox of dave was moved to the new disk",
    "2026-11-21 04:00:02 UTC [7] a@b FATAL:  remaining connection slots are reserved (SQLSTATE 53300)",
];

#[test]
fn a_state_of_version_1_names_its_lines_as_it_did() {
    let stored: State = serde_json::from_str(VERSION_1).unwrap();
    let known: Vec<LeafId> = stored.leaves.iter().map(|leaf| leaf.leaf).collect();
    let restored = Miner::restore(Config::default(), stored).unwrap();
    let (today, again) = (fold(&Miner::new(Config::default()), &LINES), fold(&restored, &LINES));

    assert_eq!(again.new, [], "these lines have other names than when they were stored");
    assert_eq!(again.counts.kept, LINES.len() as u64);
    assert!(again.rows.iter().all(|row| known.contains(&row.leaf)));
    let roots = |delta: &logwarden_templates::Delta| {
        delta.assignments.iter().map(|row| delta.rows[row.unwrap() as usize].root).collect::<Vec<_>>()
    };
    assert_eq!(roots(&again), roots(&today));
    assert!(again.rows.iter().any(|row| *row.template == *"mailbox of <*:word> was moved to the new disk"));
}
