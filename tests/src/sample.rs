//! Makes `examples/auth.log`: a night of an ordinary server, with a brute force that succeeds and a disk that fills up.
//!
//! The same seed makes the same text. All addresses are those that are set aside for documentation; nobody's log went
//! into it.

use std::fmt::Write;

/// When the log begins: 2025-11-14 22:00 UTC, in seconds of that day. It ends six hours later.
const BEGIN: u64 = 22 * 3600;
const LENGTH: u64 = 6 * 3600;

/// The attack: from 02:41 to 02:58.
const ATTACK: std::ops::Range<u64> = 16_860..17_880;
/// The disk is full from 03:12 on.
const FULL: u64 = 18_720;

const USERS: [&str; 4] = ["deploy", "anna", "olga", "ci"];
const GUESSED: [&str; 12] =
    ["admin", "test", "oracle", "postgres", "ubuntu", "git", "user", "guest", "pi", "ftp", "mysql", "www"];

/// The whole log.
pub fn sample() -> String {
    let mut night = Night { dice: 0x5eed_1095, session: 311, lines: Vec::new() };
    night.cron();
    night.systemd();
    night.logins();
    night.mail();
    night.web();
    night.kernel();
    night.attack();
    night.disk();
    night.lines.sort_by_key(|(micros, number, _)| (*micros, *number));
    night.lines.into_iter().fold(String::new(), |mut text, (micros, _, line)| {
        let (seconds, micros) = (BEGIN + micros / 1_000_000, micros % 1_000_000);
        let (day, second) = (14 + seconds / 86_400, seconds % 86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let _ = writeln!(text, "2025-11-{day}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00 web-1 {line}");
        text
    })
}

struct Night {
    dice: u64,
    session: u64,
    lines: Vec<(u64, usize, String)>,
}

impl Night {
    /// A number below `bound` (SplitMix64).
    fn roll(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let at = self.roll(among.len() as u64);
        among[usize::try_from(at).unwrap_or(0)]
    }

    /// A process that begins so many seconds into the night.
    fn pid(&mut self, second: u64) -> u64 {
        41_200 + 12 * second + self.roll(3)
    }

    fn port(&mut self) -> u64 {
        32_768 + self.roll(28_000)
    }

    /// Adds a line so many seconds into the night; lines of one second keep their order.
    fn say(&mut self, second: u64, line: String) {
        let number = self.lines.len();
        let micros = second * 1_000_000 + 400_000 + (number as u64 * 137) % 500_000;
        self.lines.push((micros, number, line));
    }

    /// Lines that follow one another at once.
    fn say_all(&mut self, second: u64, lines: impl IntoIterator<Item = String>) {
        let (first, begin) = (self.lines.len(), self.roll(500_000));
        for (offset, line) in (0..).zip(lines) {
            self.lines.push((second * 1_000_000 + begin + offset * 1_713, first, line));
        }
    }

    fn cron(&mut self) {
        let jobs: [(u64, &str, &str); 4] = [
            (300, "root", "command -v debian-sa1 > /dev/null && debian-sa1 1 1"),
            (600, "www-data", "php /var/www/shop/bin/console queue:tick --quiet"),
            (900, "root", "/usr/local/sbin/disk-report"),
            (3600, "root", "cd / && run-parts --report /etc/cron.hourly"),
        ];
        for (number, (period, user, command)) in (0..).zip(jobs) {
            for at in (0..LENGTH).step_by(usize::try_from(period).unwrap_or(1)) {
                let pid = self.pid(at + number);
                self.say_all(
                    at + 1,
                    [
                        format!("CRON[{pid}]: pam_unix(cron:session): session opened for user {user}(uid={}) by {user}(uid=0)", uid(user)),
                        format!("CRON[{}]: ({user}) CMD ({command})", pid + 1),
                        format!("CRON[{pid}]: pam_unix(cron:session): session closed for user {user}"),
                    ],
                );
                if period == 900 {
                    // The disk fills slowly at first; nobody looks at the numbers.
                    let free = 5_900_u64.saturating_sub(at * 5_900 / FULL);
                    self.say(at + 2, format!("disk-report[{}]: /dev/sda2 on /var: {free} of 20480 MB free", pid + 2));
                }
            }
        }
    }

    fn systemd(&mut self) {
        let units = [
            ("apt-daily.service", "Daily apt download activities", 5_000),
            ("logrotate.service", "Rotate log files", 7_200),
            ("man-db.service", "Daily man-db regeneration", 7_203),
            ("fwupd-refresh.service", "Refresh fwupd metadata and update motd", 10_000),
            ("motd-news.service", "Message of the Day", 12_311),
            ("fstrim.service", "Discard unused blocks on filesystems from /etc/fstab", 9_012),
        ];
        for (unit, what, at) in units {
            let took = 1 + self.roll(4);
            self.say(at, format!("systemd[1]: Starting {unit} - {what}..."));
            self.say(at + took, format!("systemd[1]: {unit}: Deactivated successfully."));
            self.say(at + took, format!("systemd[1]: Finished {unit} - {what}."));
        }
        for at in (540..LENGTH).step_by(1_800) {
            self.say(at, "systemd[1]: Starting phpsessionclean.service - Clean php session files...".to_owned());
            self.say(at + 1, "systemd[1]: phpsessionclean.service: Deactivated successfully.".to_owned());
            self.say(at + 1, "systemd[1]: Finished phpsessionclean.service - Clean php session files.".to_owned());
        }
        for at in (97..LENGTH).step_by(1_797) {
            let lease = 1_800 + self.roll(60);
            self.say(at, format!("systemd-networkd[612]: ens3: DHCPv4 lease renewed, valid for {lease} seconds"));
        }
        for at in (331..LENGTH).step_by(2_048) {
            self.say(at, "systemd-timesyncd[588]: Contacted time server 192.0.2.123:123 (ntp.example.org).".to_owned());
        }
    }

    /// People and machines with keys; now and then somebody mistypes a password.
    fn logins(&mut self) {
        let mut at = 40;
        while at < LENGTH - 700 {
            let (user, pid, port) = (self.pick(&USERS), self.pid(at), self.port());
            let address = self.pick(&["192.0.2.10", "192.0.2.11", "192.0.2.40", "192.0.2.77"]);
            let key = self.pick(&[
                "ED25519 SHA256:Wm0h5cVqQ3bW1n8yP4sRkT7uJ2xLdF6aZ9oGe1iHc0M",
                "RSA SHA256:p8Lr2YtVb6KqN0sXw4ZcJ7mDf1GhAe9UiTo3RkWnB5E",
            ]);
            self.session += 1;
            let session = self.session;
            let stays = 20 + self.roll(600);
            self.say_all(
                at,
                [
                    format!("sshd[{pid}]: Accepted publickey for {user} from {address} port {port} ssh2: {key}"),
                    format!(
                        "sshd[{pid}]: pam_unix(sshd:session): session opened for user {user}(uid={}) by {user}(uid=0)",
                        uid(user)
                    ),
                    format!("systemd-logind[701]: New session {session} of user {user}."),
                    format!("systemd[1]: Started session-{session}.scope - Session {session} of User {user}."),
                ],
            );
            if user == "deploy" {
                let command = self.pick(&[
                    "/usr/bin/systemctl reload nginx",
                    "/usr/bin/systemctl status shop-worker",
                    "/usr/bin/journalctl -u shop-worker -n 50",
                ]);
                self.say_all(
                    at + 9,
                    [
                        format!(
                            "sudo[{}]:   deploy : TTY=pts/0 ; PWD=/srv/shop ; USER=root ; COMMAND={command}",
                            pid + 3
                        ),
                        format!(
                            "sudo[{}]: pam_unix(sudo:session): session opened for user root(uid=0) by deploy(uid=1000)",
                            pid + 3
                        ),
                        format!("sudo[{}]: pam_unix(sudo:session): session closed for user root", pid + 3),
                    ],
                );
            }
            self.say_all(
                at + stays,
                [
                    format!("sshd[{pid}]: Received disconnect from {address} port {port}:11: disconnected by user"),
                    format!("sshd[{pid}]: Disconnected from user {user} {address} port {port}"),
                    format!("sshd[{pid}]: pam_unix(sshd:session): session closed for user {user}"),
                    format!("systemd[1]: session-{session}.scope: Deactivated successfully."),
                    format!("systemd-logind[701]: Removed session {session}."),
                ],
            );
            at += 90 + self.roll(260);
        }
        let (pid, port) = (self.pid(8_210), self.port());
        self.say(8_215, format!("sshd[{pid}]: Failed password for anna from 192.0.2.11 port {port} ssh2"));
        self.say(8_224, format!("sshd[{pid}]: Accepted password for anna from 192.0.2.11 port {port} ssh2"));
    }

    fn mail(&mut self) {
        let mut at = 15;
        while at < LENGTH {
            let id = format!("{:010X}", 0x1_0000_0000_u64 + self.roll(0xffff_ffff));
            let (to, size) = (self.pick(&["orders", "support", "noreply", "reports"]), 1_200 + self.roll(38_000));
            let (relay, delay) = (self.pick(&["192.0.2.25", "192.0.2.26"]), 1 + self.roll(30));
            let (pid, code) = (2_000 + self.roll(400), self.roll(999_999));
            if at < FULL {
                self.say_all(
                    at,
                    [
                        format!("postfix/pickup[{pid}]: {id}: uid=33 from=<www-data>"),
                        format!("postfix/cleanup[{}]: {id}: message-id=<{code}.{id}@web-1.example.com>", pid + 1),
                        format!("postfix/qmgr[1204]: {id}: from=<www-data@web-1.example.com>, size={size}, nrcpt=1 (queue active)"),
                    ],
                );
                self.say_all(
                    at + 1,
                    [
                        format!("postfix/smtp[{}]: {id}: to=<{to}@example.com>, relay=mx.example.com[{relay}]:25, delay=0.{delay}, delays=0.02/0/0.1/0.{delay}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {:X})", pid + 2, code * 4_099),
                        format!("postfix/qmgr[1204]: {id}: removed"),
                    ],
                );
            }
            at += 60 + self.roll(140);
        }
    }

    fn web(&mut self) {
        let mut at = 70;
        while at < LENGTH {
            let (request, client) = (90_000 + at, self.roll(250));
            let path =
                self.pick(&["favicon.ico", "robots.txt", "apple-touch-icon.png", "wp-login.php", ".env", "ads.txt"]);
            let line = match self.roll(9) {
                0 => format!(
                    "nginx[812]: [warn] 812#812: *{request} a client request body is buffered to a temporary file /var/lib/nginx/body/{:010}, client: 198.51.100.{client}, server: shop.example.com, request: \"POST /api/upload HTTP/2.0\", host: \"shop.example.com\"",
                    request
                ),
                1 => format!(
                    "nginx[812]: [error] 812#812: *{request} access forbidden by rule, client: 198.51.100.{client}, server: shop.example.com, request: \"GET /.git/config HTTP/1.1\", host: \"shop.example.com\""
                ),
                _ => format!(
                    "nginx[812]: [error] 812#812: *{request} open() \"/var/www/shop/public/{path}\" failed (2: No such file or directory), client: 198.51.100.{client}, server: shop.example.com, request: \"GET /{path} HTTP/1.1\", host: \"shop.example.com\""
                ),
            };
            self.say(at, line);
            at += 30 + self.roll(90);
        }
    }

    /// The internet's noise, as the firewall sees it.
    fn kernel(&mut self) {
        let mut at = 5;
        while at < LENGTH {
            let (source, id, port) = (self.roll(254) + 1, self.roll(65_000), self.port());
            let target = self.pick(&[23, 445, 3389, 8080, 5900, 6379, 1433]);
            let uptime = 411_000 + at;
            let fraction = self.roll(999_999);
            self.say(at, format!("kernel: [{uptime}.{fraction:06}] [UFW BLOCK] IN=ens3 OUT= MAC=52:54:00:12:34:56:52:54:00:ab:cd:ef:08:00 SRC=198.51.100.{source} DST=192.0.2.1 LEN=40 TOS=0x00 PREC=0x00 TTL=241 ID={id} PROTO=TCP SPT={port} DPT={target} WINDOW=1024 RES=0x00 SYN URGP=0"));
            at += 8 + self.roll(50);
        }
    }

    fn attack(&mut self) {
        let mut at = ATTACK.start;
        while at < ATTACK.end {
            let address = self.pick(&[
                "203.0.113.7",
                "203.0.113.7",
                "203.0.113.7",
                "203.0.113.7",
                "203.0.113.54",
                "198.51.100.23",
            ]);
            let (pid, port) = (self.pid(at), self.port());
            if self.roll(3) == 0 {
                let user = self.pick(&GUESSED);
                self.say_all(
                    at,
                    [
                        format!("sshd[{pid}]: Invalid user {user} from {address} port {port}"),
                        format!("sshd[{pid}]: pam_unix(sshd:auth): check pass; user unknown"),
                        format!("sshd[{pid}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}"),
                        format!("sshd[{pid}]: Failed password for invalid user {user} from {address} port {port} ssh2"),
                        format!("sshd[{pid}]: Connection closed by invalid user {user} {address} port {port} [preauth]"),
                    ],
                );
            } else {
                let user = self.pick(&["root", "root", "deploy"]);
                self.say_all(
                    at,
                    [
                        format!("sshd[{pid}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}  user={user}"),
                        format!("sshd[{pid}]: Failed password for {user} from {address} port {port} ssh2"),
                        format!("sshd[{pid}]: Connection closed by authenticating user {user} {address} port {port} [preauth]"),
                    ],
                );
            }
            at += 2 + self.roll(4);
        }
        let (pid, port) = (self.pid(ATTACK.end), self.port());
        self.say_all(
            ATTACK.end + 4,
            [
                format!("sshd[{pid}]: Accepted password for deploy from 203.0.113.7 port {port} ssh2"),
                format!(
                    "sshd[{pid}]: pam_unix(sshd:session): session opened for user deploy(uid=1000) by deploy(uid=0)"
                ),
            ],
        );
    }

    fn disk(&mut self) {
        let mut at = FULL;
        while at < LENGTH {
            let (pid, bytes) = (30_000 + self.roll(900), 300 + self.roll(900));
            let line = match self.roll(4) {
                0 => "rsyslogd[655]: file '/var/log/shop/worker.log'[9] write error - see https://www.rsyslog.com/solving-rsyslog-write-errors/ for help OS error: No space left on device [v8.2312.0 try https://www.rsyslog.com/e/2027 ]".to_owned(),
                1 => format!("systemd-journald[402]: Failed to write entry to /var/log/journal (22 items, {bytes} bytes), ignoring: No space left on device"),
                2 => format!("postfix/cleanup[{pid}]: fatal: write queue file: No space left on device"),
                _ => format!("postgres[{pid}]: [3-1] ERROR:  could not extend file \"base/16384/{}\": No space left on device", 24_000 + bytes),
            };
            self.say(at, line);
            at += 10 + self.roll(50);
        }
        self.say(
            FULL + 1_500,
            "postgres[1410]: [5-1] PANIC:  could not write to file \"pg_wal/xlogtemp.1410\": No space left on device"
                .to_owned(),
        );
        self.say(
            FULL + 1_501,
            "systemd[1]: postgresql@16-main.service: Main process exited, code=killed, status=6/ABRT".to_owned(),
        );
        self.say(FULL + 1_501, "systemd[1]: postgresql@16-main.service: Failed with result 'signal'.".to_owned());
    }
}

fn uid(user: &str) -> u64 {
    match user {
        "deploy" => 1000,
        "anna" => 1001,
        "olga" => 1003,
        "ci" => 1002,
        "www-data" => 33,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_sample_is_what_is_made() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/auth.log");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == sample(), "cargo run -p logwarden-tests --bin make-sample > examples/auth.log");
    }

    #[test]
    fn it_has_the_attack_the_full_disk_and_much_that_is_ordinary() {
        let text = sample();
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert!(count("Failed password") > 200 && count("No space left on device") > 50);
        assert!(count("") > 3000, "{} lines", count(""));
        let last =
            |part: &str| text.lines().enumerate().filter(|(_, line)| line.contains(part)).last().map(|(at, _)| at);
        assert!(last("Accepted password for deploy from 203.0.113.7") > last("Failed password"));
    }
}
