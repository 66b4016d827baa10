//! What is planted into the quiet: one kind of incident per signal of the detectors.

use logwarden_core::{Timestamp, testing::Dice};

use super::{
    WINDOW,
    host::{Entry, Host},
};

/// The kinds of incidents, one per signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An error that this service has never written.
    NewTemplate,
    /// A known warning comes far more often.
    RateUp,
    /// A line that came every minute comes no more, while its program goes on.
    StoppedTemplate,
    /// A whole source falls silent.
    DeadSource,
    /// A user who never logged in before.
    NewValue,
    /// One address tries passwords.
    Burst,
    /// One address tries passwords and gets in.
    SuccessAfterFailures,
    /// Known warnings and errors become most of what a program says, none of them often enough to stand out.
    LevelMix,
    /// Something that is known to be bad.
    KnownBad,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NewTemplate,
        Self::Burst,
        Self::KnownBad,
        Self::RateUp,
        Self::NewValue,
        Self::StoppedTemplate,
        Self::SuccessAfterFailures,
        Self::LevelMix,
        Self::DeadSource,
    ];

    /// In words, for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewTemplate => "new template",
            Self::RateUp => "rate up",
            Self::StoppedTemplate => "stopped template",
            Self::DeadSource => "dead source",
            Self::NewValue => "new value",
            Self::Burst => "burst per entity",
            Self::SuccessAfterFailures => "success after failures",
            Self::LevelMix => "level mix",
            Self::KnownBad => "known bad",
        }
    }
}

/// An incident, where it was put.
#[derive(Clone, Debug)]
pub struct Planted {
    /// What kind.
    pub kind: Kind,
    /// Which of its kind.
    pub round: usize,
    /// The minute since the beginning in which it begins.
    pub begins: i64,
    /// The minute in which it is over.
    pub ends: i64,
    /// The minute in which nobody could deny it: a window of changed lines, the silence that is longer than five usual
    /// gaps and ten minutes.
    pub due: i64,
    /// The rule or detector that should claim it.
    pub by: &'static str,
    /// A text that an alert about it shows.
    pub mark: &'static str,
}

const NEW: [&str; 2] = ["stock ledger out of step", "cannot write to the invoice archive"];
const USERS: [&str; 2] = ["mallory", "eve"];
const ATTACKERS: [&str; 4] = ["203.0.113.201", "198.51.100.202", "203.0.113.203", "198.51.100.204"];
const BAD: [(&str, &str, &str); 4] = [
    (
        "oom-kill",
        "kernel",
        "kernel: Out of memory: Killed process 4242 (java) total-vm:8123456kB, anon-rss:4012345kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:9000kB oom_score_adj:0",
    ),
    ("disk-full", "postgres", "ERROR:  could not extend file \"base/16384/16397\": No space left on device"),
    ("read-only-remount", "kernel", "kernel: EXT4-fs (sda2): Remounting filesystem read-only"),
    ("unit-failed", "systemd", "systemd[1]: nginx.service: Failed with result 'exit-code'."),
];

impl Planted {
    /// Plants an incident of this kind.
    pub fn at(kind: Kind, round: usize, begins: i64, dice: &mut Dice) -> Self {
        let of = |among: &[&'static str]| among.get(round % among.len()).copied().unwrap_or_default();
        let (lasts, due, by, mark) = match kind {
            Kind::NewTemplate => (3, 0, "novel", of(&NEW)),
            Kind::RateUp => (15, 0, "surge", "payment provider answers slowly"),
            Kind::StoppedTemplate => (90, 10, "silence", "worker alive"),
            Kind::DeadSource => (90, 10, "source-silence", "db-2"),
            Kind::NewValue => (1, 0, "new-value", of(&USERS)),
            Kind::Burst => (3, 0, "ssh-login", of(&ATTACKERS[..2])),
            Kind::SuccessAfterFailures => (4, 3, "ssh-login-success", of(&ATTACKERS[2..])),
            Kind::LevelMix => (40, WINDOW, "level-mix", "shop"),
            Kind::KnownBad => {
                let (rule, _, text) = BAD[(dice.below(2) as usize + 2 * round) % BAD.len()];
                (2, 0, rule, text)
            }
        };
        Self { kind, round, begins, ends: begins + lasts, due: begins + due, by, mark }
    }

    /// What it adds to a minute.
    pub fn lines(&self, host: &mut Host, dice: &mut Dice, minute: i64) -> Vec<Entry> {
        if !(self.begins..self.ends).contains(&minute) {
            return Vec::new();
        }
        let into = minute - self.begins;
        let mut lines = Vec::new();
        match self.kind {
            Kind::StoppedTemplate | Kind::DeadSource => {} // nothing is what they say
            Kind::NewTemplate => {
                let warehouse = dice.below(9);
                let text = format!("level=error msg=\"{}\" warehouse={warehouse}", self.mark);
                lines.push(host.line("shop", minute, 21, text));
            }
            Kind::RateUp => {
                for second in 0..12 {
                    let millis = 4_000 + dice.below(9_000);
                    let text = format!("level=warn msg=\"{}\" took_ms={millis}", self.mark);
                    lines.push(host.line("shop", minute, second * 3, text));
                }
            }
            Kind::NewValue => {
                let (pid, port) = (host.next_pid(), 40_000 + dice.below(20_000));
                let text = format!(
                    "sshd[{pid}]: Accepted publickey for {} from 192.0.2.77 port {port} ssh2: ED25519 SHA256:q8Lr2YtVb6KqN0sXw4ZcJ7mDf1GhAe9UiTo3RkWnB5E",
                    self.mark
                );
                lines.push(host.line("sshd", minute, 12, text));
            }
            Kind::Burst | Kind::SuccessAfterFailures => {
                let last = self.kind == Kind::SuccessAfterFailures && minute == self.ends - 1;
                for second in 0..if last { 2 } else { 6 + dice.below(6) } {
                    let (pid, port) = (host.next_pid(), 40_000 + dice.below(20_000));
                    let user = ["root", "admin", "deploy", "oracle"][dice.below(4) as usize];
                    let text = format!("sshd[{pid}]: Failed password for {user} from {} port {port} ssh2", self.mark);
                    lines.push(host.line("sshd", minute, second * 4, text));
                }
                if last {
                    let (pid, port) = (host.next_pid(), 40_000 + dice.below(20_000));
                    let text = format!("sshd[{pid}]: Accepted password for deploy from {} port {port} ssh2", self.mark);
                    lines.push(host.line("sshd", minute, 30, text));
                }
            }
            Kind::LevelMix => {
                let order = 100_000 + dice.below(900_000);
                let texts = [
                    format!("level=warn msg=\"payment provider answers slowly\" took_ms={}", 2_000 + order % 3_000),
                    format!("level=warn msg=\"address could not be verified\" order={order}"),
                    format!("level=error msg=\"receipt not sent, trying again later\" order={order}"),
                ];
                // Eight of each in five minutes: no single one is a surge.
                for (number, text) in (0..).zip(texts) {
                    for second in 0..if minute % 5 < 3 { 2 } else { 1 } {
                        lines.push(host.line("shop", minute, 3 + 20 * second + number, text.clone()));
                    }
                }
            }
            Kind::KnownBad => {
                if let Some((_, program, text)) = BAD.iter().find(|(_, _, text)| *text == self.mark)
                    && into == 0
                {
                    lines.push(host.line(program, minute, 19, (*text).to_owned()));
                }
            }
        }
        lines
    }

    /// Whether an alert that speaks of `last` and shows `text` is about this.
    pub fn explains(&self, begin: Timestamp, last: Timestamp, text: &str) -> bool {
        let minute = (last.secs() - begin.secs()).div_euclid(60);
        // What comes back after a silence may still be spoken of.
        (self.begins - 10..=self.ends + 15).contains(&minute) && text.contains(self.mark)
    }
}
