//! A quiet host: what an ordinary server writes when nothing is wrong.
//!
//! Web, logins, cron, systemd, mail, a database, an application with its queue, a firewall and the noise of the internet;
//! more by day than by night, less on weekends. Addresses are those set aside for documentation.

use std::{collections::BTreeMap, sync::Arc};

use logwarden_core::{Stream, Timestamp, testing::Dice};

/// A line before it is a [`Line`](logwarden_core::Line).
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it is written.
    pub time: Timestamp,
    /// By whom.
    pub stream: Arc<Stream>,
    /// What it says.
    pub text: String,
}

/// The machine that the lines are from.
pub const HOST: &str = "web-1";
/// The small machine beside it, a source of its own.
pub const OTHER_HOST: &str = "db-2";

const PEOPLE: [(&str, &str, u64); 5] = [
    ("anna", "192.0.2.10", 1001),
    ("olga", "192.0.2.11", 1002),
    ("deploy", "192.0.2.40", 1000),
    ("ci", "192.0.2.41", 1004),
    ("ben", "192.0.2.77", 1003),
];
const GUESSED: [&str; 10] = ["admin", "test", "oracle", "ubuntu", "git", "guest", "pi", "ftp", "user1", "support"];
const PAGES: [&str; 12] = [
    "/",
    "/products",
    "/products/lamps",
    "/cart",
    "/checkout",
    "/account",
    "/assets/app.js",
    "/assets/site.css",
    "/img/logo.svg",
    "/search?q=lamp",
    "/api/v1/stock",
    "/api/v1/prices",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "uptime-probe/2.1",
];

/// Makes the lines of one machine, minute by minute.
#[derive(Debug)]
pub struct Host {
    dice: Dice,
    begin: i64,
    streams: BTreeMap<(&'static str, &'static str), Arc<Stream>>,
    lines: Vec<Entry>,
    session: u64,
    pid: u64,
    /// Of ordinary traffic, so many hundredths.
    volume: u64,
    /// The heartbeat of the queue worker is written.
    pub beats: bool,
    /// The release that the application runs; a new one says new things.
    pub release: u64,
}

impl Host {
    /// A machine that begins to write at `begin`, a midnight.
    pub fn new(seed: u64, begin: Timestamp, volume: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            begin: begin.secs(),
            streams: BTreeMap::new(),
            lines: Vec::new(),
            session: 100,
            pid: 2_000,
            volume,
            beats: true,
            release: 41,
        }
    }

    /// What is written in a minute since the beginning, in order of time.
    pub fn minute(&mut self, minute: i64) -> Vec<Entry> {
        self.cron(minute);
        self.systemd(minute);
        self.logins(minute);
        self.noise(minute);
        self.web(minute);
        self.mail(minute);
        self.database(minute);
        self.shop(minute);
        self.backup(minute);
        self.kernel(minute);
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_by_key(|line| line.time);
        lines
    }

    /// What the small machine writes in a minute: a database and little else.
    pub fn other_minute(&mut self, minute: i64) -> Vec<Entry> {
        if minute % 5 == 2 {
            let buffers = 40 + self.dice.below(30);
            self.say(OTHER_HOST, "postgres", minute, 4, "LOG:  checkpoint starting: time".to_owned());
            let text = format!("LOG:  checkpoint complete: wrote {buffers} buffers (0.3%); 0 WAL file(s) added");
            self.say(OTHER_HOST, "postgres", minute, 30, text);
        }
        for _ in 0..2 {
            let (second, lag) = (self.dice.below(60), self.dice.below(9));
            self.say(OTHER_HOST, "replica", minute, second, format!("replay position advanced, lag {lag} ms"));
        }
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_by_key(|line| line.time);
        lines
    }

    /// How much traffic there is, in hundredths of ordinary traffic.
    pub fn set_volume(&mut self, volume: u64) {
        self.volume = volume;
    }

    /// A line of this machine, at a second of a minute since the beginning.
    pub fn line(&mut self, program: &'static str, minute: i64, second: u64, text: String) -> Entry {
        self.entry(HOST, program, minute, second, text)
    }

    /// Where the next process begins.
    pub fn next_pid(&mut self) -> u64 {
        self.pid += 1 + self.dice.below(9);
        self.pid
    }

    fn entry(&mut self, host: &'static str, program: &'static str, minute: i64, second: u64, text: String) -> Entry {
        let millis = self.dice.below(1_000_000_000) as i64;
        let time = Timestamp::from_nanos((self.begin + minute * 60 + second as i64) * 1_000_000_000 + millis);
        let stream = self.streams.entry((host, program)).or_insert_with(|| {
            let labels = [("host", host), ("service_name", program), ("job", "syslog")];
            Arc::new(Stream::new(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()))
        });
        Entry { time, stream: stream.clone(), text }
    }

    fn say(&mut self, host: &'static str, program: &'static str, minute: i64, second: u64, text: String) {
        let entry = self.entry(host, program, minute, second.min(59), text);
        self.lines.push(entry);
    }

    fn tell(&mut self, program: &'static str, minute: i64, second: u64, text: String) {
        self.say(HOST, program, minute, second, text);
    }

    /// How much of its busiest hour's traffic a minute has, in thousandths: nights are quiet, weekends quieter.
    fn busy(&self, minute: i64) -> u64 {
        const BY_HOUR: [u64; 24] = [
            180, 140, 120, 110, 120, 160, 260, 420, 640, 800, 900, 960, 980, 1000, 990, 960, 930, 900, 860, 820, 700,
            520, 360, 240,
        ];
        let seconds = self.begin + minute * 60;
        let hour = seconds.div_euclid(3600).rem_euclid(24) as usize;
        let day = (seconds.div_euclid(86_400) + 4).rem_euclid(7); // 0 is a Sunday
        let of_day = if day == 0 || day == 6 { 600 } else { 1000 };
        BY_HOUR.get(hour).copied().unwrap_or(500) * of_day / 1000 * self.volume / 100
    }

    /// Whether something that happens about `per_day` times a day, by night as by day, happens in this minute.
    fn now_and_then(&mut self, per_day: u64) -> bool {
        self.dice.below(1440) < per_day
    }

    /// How many of something there are in a minute, of which there are `thousandths` on average.
    fn some(&mut self, thousandths: u64) -> u64 {
        // A sum of dice is close enough to a Poisson process, and a little burstier.
        let (whole, rest) = (thousandths * 2 / 1000, thousandths * 2 % 1000);
        self.dice.below(whole + 1) + u64::from(self.dice.below(2000) < rest)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.dice.below(among.len() as u64) as usize]
    }

    /// An address of somebody out there.
    fn stranger(&mut self) -> String {
        let net = self.pick(&["198.51.100", "203.0.113"]);
        format!("{net}.{}", 1 + self.dice.below(199))
    }

    fn cron(&mut self, minute: i64) {
        let jobs: [(i64, i64, &str, &str); 5] = [
            (5, 0, "root", "command -v debian-sa1 > /dev/null && debian-sa1 1 1"),
            (10, 1, "www-data", "php /var/www/shop/bin/console queue:tick --quiet"),
            (15, 0, "root", "/usr/local/sbin/disk-report"),
            (60, 17, "root", "cd / && run-parts --report /etc/cron.hourly"),
            (1440, 385, "root", "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }"),
        ];
        for (period, offset, user, command) in jobs {
            if minute % period == offset {
                let pid = self.next_pid();
                let opened = "pam_unix(cron:session): session opened for user";
                self.tell("CRON", minute, 1, format!("CRON[{pid}]: {opened} {user}(uid=0) by {user}(uid=0)"));
                self.tell("CRON", minute, 1, format!("CRON[{}]: ({user}) CMD ({command})", pid + 1));
                self.tell(
                    "CRON",
                    minute,
                    2,
                    format!("CRON[{pid}]: pam_unix(cron:session): session closed for user {user}"),
                );
                if command.ends_with("disk-report") {
                    let free = 9_000 + self.dice.below(900);
                    self.tell(
                        "disk-report",
                        minute,
                        2,
                        format!("disk-report[{}]: /dev/sda2 on /var: {free} of 20480 MB free", pid + 2),
                    );
                }
            }
        }
    }

    fn systemd(&mut self, minute: i64) {
        let units = [
            ("phpsessionclean.service", "Clean php session files", 30, 9),
            ("apt-daily.service", "Daily apt download activities", 720, 340),
            ("logrotate.service", "Rotate log files", 1440, 0),
            ("man-db.service", "Daily man-db regeneration", 1440, 1),
            ("fstrim.service", "Discard unused blocks on filesystems from /etc/fstab", 10_080, 67),
            ("dpkg-db-backup.service", "Daily dpkg database backup service", 1440, 2),
        ];
        for (unit, what, period, offset) in units {
            if minute % period == offset {
                let took = 2 + self.dice.below(9);
                self.tell("systemd", minute, 4, format!("systemd[1]: Starting {unit} - {what}..."));
                self.tell("systemd", minute, 4 + took, format!("systemd[1]: {unit}: Deactivated successfully."));
                self.tell("systemd", minute, 4 + took, format!("systemd[1]: Finished {unit} - {what}."));
            }
        }
        if minute % 30 == 7 {
            let lease = 1_800 + self.dice.below(60);
            self.tell(
                "systemd-networkd",
                minute,
                40,
                format!("systemd-networkd[612]: ens3: DHCPv4 lease renewed, valid for {lease} seconds"),
            );
        }
        if minute % 34 == 3 {
            self.tell(
                "systemd-timesyncd",
                minute,
                20,
                "systemd-timesyncd[588]: Contacted time server 192.0.2.123:123 (ntp.example.org).".to_owned(),
            );
        }
    }

    /// People and machines with keys.
    fn logins(&mut self, minute: i64) {
        for _ in 0..self.some(self.busy(minute) * 90 / 1000) {
            let (user, address, uid) = self.pick(&PEOPLE);
            let (pid, port, second) = (self.next_pid(), 32_768 + self.dice.below(28_000), self.dice.below(40));
            self.session += 1;
            let session = self.session;
            self.tell("sshd", minute, second, format!("sshd[{pid}]: Accepted publickey for {user} from {address} port {port} ssh2: ED25519 SHA256:Wm0h5cVqQ3bW1n8yP4sRkT7uJ2xLdF6aZ9oGe1iHc0M"));
            self.tell(
                "sshd",
                minute,
                second,
                format!(
                    "sshd[{pid}]: pam_unix(sshd:session): session opened for user {user}(uid={uid}) by {user}(uid=0)"
                ),
            );
            self.tell(
                "systemd-logind",
                minute,
                second,
                format!("systemd-logind[701]: New session {session} of user {user}."),
            );
            if user == "deploy" {
                let command =
                    self.pick(&["/usr/bin/systemctl status shop-worker", "/usr/bin/journalctl -u shop-worker -n 50"]);
                self.tell(
                    "sudo",
                    minute,
                    second + 4,
                    format!("sudo[{}]:   deploy : TTY=pts/0 ; PWD=/srv/shop ; USER=root ; COMMAND={command}", pid + 3),
                );
                self.tell(
                    "sudo",
                    minute,
                    second + 4,
                    format!(
                        "sudo[{}]: pam_unix(sudo:session): session opened for user root(uid=0) by deploy(uid=1000)",
                        pid + 3
                    ),
                );
                self.tell(
                    "sudo",
                    minute,
                    second + 5,
                    format!("sudo[{}]: pam_unix(sudo:session): session closed for user root", pid + 3),
                );
            }
            self.tell(
                "sshd",
                minute,
                second + 15,
                format!("sshd[{pid}]: Received disconnect from {address} port {port}:11: disconnected by user"),
            );
            self.tell(
                "sshd",
                minute,
                second + 15,
                format!("sshd[{pid}]: pam_unix(sshd:session): session closed for user {user}"),
            );
            self.tell(
                "systemd-logind",
                minute,
                second + 16,
                format!("systemd-logind[701]: Removed session {session}."),
            );
        }
    }

    /// What the internet throws at every machine: single guesses, single refused packets, mistyped passwords.
    fn noise(&mut self, minute: i64) {
        if self.now_and_then(40) {
            let (pid, port, address, user) =
                (self.next_pid(), 32_768 + self.dice.below(28_000), self.stranger(), self.pick(&GUESSED));
            self.tell("sshd", minute, 20, format!("sshd[{pid}]: Invalid user {user} from {address} port {port}"));
            self.tell(
                "sshd",
                minute,
                22,
                format!("sshd[{pid}]: Connection closed by invalid user {user} {address} port {port} [preauth]"),
            );
        }
        if self.now_and_then(3) {
            let ((user, address, _), pid, port) =
                (self.pick(&PEOPLE), self.next_pid(), 32_768 + self.dice.below(28_000));
            self.tell(
                "sshd",
                minute,
                31,
                format!("sshd[{pid}]: Failed password for {user} from {address} port {port} ssh2"),
            );
            self.tell(
                "sshd",
                minute,
                38,
                format!("sshd[{pid}]: Accepted password for {user} from {address} port {port} ssh2"),
            );
        }
        if self.now_and_then(150) {
            let (from, port, second) = (self.stranger(), self.pick(&[23, 445, 3389, 5060, 8080]), self.dice.below(60));
            let (id, spt) = (self.dice.below(60_000), 1024 + self.dice.below(60_000));
            self.tell("kernel", minute, second, format!("kernel: [UFW BLOCK] IN=ens3 OUT= MAC=52:54:00:12:34:56 SRC={from} DST=192.0.2.1 LEN=40 TOS=0x00 TTL=244 ID={id} PROTO=TCP SPT={spt} DPT={port} WINDOW=1024 RES=0x00 SYN URGP=0"));
        }
    }

    fn web(&mut self, minute: i64) {
        for _ in 0..self.some(self.busy(minute) * 8) {
            let (address, page, agent) = (self.stranger(), self.pick(&PAGES), self.pick(&AGENTS));
            let status = match self.dice.below(1000) {
                0..=3 => 500,
                4..=30 => 404,
                31..=120 => 304,
                _ => 200,
            };
            let (size, second) = (200 + self.dice.below(40_000), self.dice.below(60));
            let time = clf(self.begin + minute * 60 + second as i64);
            self.tell(
                "nginx",
                minute,
                second,
                format!("{address} - - [{time}] \"GET {page} HTTP/1.1\" {status} {size} \"-\" \"{agent}\""),
            );
        }
        if self.now_and_then(25) {
            let (client, number) = (self.stranger(), self.dice.below(900_000));
            self.tell(
                "nginx",
                minute,
                33,
                format!("2026/11/02 10:00:00 [info] 811#811: *{number} client {client} closed keepalive connection"),
            );
        }
    }

    fn mail(&mut self, minute: i64) {
        for _ in 0..self.some(self.busy(minute) * 600 / 1000) {
            let (id, second) = (format!("{:X}", 0x10_0000_0000 + self.dice.below(0xff_ffff_ffff)), self.dice.below(50));
            let (pid, size, delay) = (self.next_pid(), 900 + self.dice.below(90_000), 1 + self.dice.below(30));
            self.tell(
                "postfix",
                minute,
                second,
                format!("postfix/qmgr[902]: {id}: from=<shop@example.org>, size={size}, nrcpt=1 (queue active)"),
            );
            self.tell("postfix", minute, second + delay / 10, format!("postfix/smtp[{pid}]: {id}: to=<customer{}@example.net>, relay=mx.example.net[198.51.100.25]:25, delay=0.{delay}, delays=0.05/0/0.1/0.1, dsn=2.0.0, status=sent (250 OK)", self.pid % 97));
            self.tell("postfix", minute, second + delay / 10, format!("postfix/qmgr[902]: {id}: removed"));
        }
        if self.now_and_then(30) {
            let (pid, address) = (self.next_pid(), self.stranger());
            self.tell("postfix", minute, 14, format!("postfix/smtpd[{pid}]: connect from unknown[{address}]"));
            self.tell(
                "postfix",
                minute,
                17,
                format!("postfix/smtpd[{pid}]: disconnect from unknown[{address}] ehlo=1 quit=1 commands=2"),
            );
        }
    }

    fn database(&mut self, minute: i64) {
        if minute % 5 == 3 {
            let (buffers, seconds) = (40 + self.dice.below(400), self.dice.below(30));
            self.tell("postgres", minute, 2, "LOG:  checkpoint starting: time".to_owned());
            self.tell("postgres", minute, 4 + seconds, format!("LOG:  checkpoint complete: wrote {buffers} buffers (2.1%); 0 WAL file(s) added, 0 removed, 1 recycled; write={seconds}.2 s, sync=0.004 s, total={seconds}.3 s"));
        }
        if self.now_and_then(12) {
            let millis = 1_000 + self.dice.below(900);
            self.tell("postgres", minute, 44, format!("LOG:  duration: {millis}.113 ms  statement: SELECT * FROM orders WHERE created > now() - interval '1 day'"));
        }
    }

    /// The application: orders, a little trouble now and then, and a worker whose heart beats every minute.
    fn shop(&mut self, minute: i64) {
        let release = self.release;
        for _ in 0..self.some(self.busy(minute) * 3) {
            let (order, cents, second) =
                (100_000 + self.dice.below(900_000), 900 + self.dice.below(90_000), self.dice.below(60));
            let text = match self.dice.below(4) {
                0 => format!("level=info msg=\"order placed\" order={order} total_cents={cents}"),
                1 => format!("level=info msg=\"basket updated\" items={} session={order}", 1 + order % 9),
                2 if release > 41 => {
                    format!("level=info msg=\"price cache refreshed\" entries={} release={release}", cents / 10)
                }
                2 => format!("level=info msg=\"prices loaded\" entries={}", cents / 10),
                _ => format!("level=info msg=\"page rendered\" took_ms={}", 5 + order % 190),
            };
            self.tell("shop", minute, second, text);
        }
        if self.now_and_then(30) {
            let millis = 2_000 + self.dice.below(3_000);
            self.tell(
                "shop",
                minute,
                37,
                format!("level=warn msg=\"payment provider answers slowly\" took_ms={millis}"),
            );
        }
        if self.now_and_then(20) {
            let order = 100_000 + self.dice.below(900_000);
            self.tell("shop", minute, 11, format!("level=warn msg=\"address could not be verified\" order={order}"));
        }
        if self.now_and_then(8) {
            let order = 100_000 + self.dice.below(900_000);
            self.tell(
                "shop",
                minute,
                52,
                format!("level=error msg=\"receipt not sent, trying again later\" order={order}"),
            );
        }
        if self.beats {
            let waiting = self.dice.below(12);
            self.tell("shop-worker", minute, 29, format!("level=info msg=\"worker alive\" jobs_waiting={waiting}"));
        }
        for _ in 0..self.some(self.busy(minute) * 2) {
            let (job, second) = (1_000_000 + self.dice.below(9_000_000), self.dice.below(60));
            self.tell("shop-worker", minute, second, format!("level=info msg=\"job done\" job={job}"));
        }
    }

    fn backup(&mut self, minute: i64) {
        match minute.rem_euclid(1440) {
            150 => self.tell(
                "backup",
                minute,
                0,
                "backup[77]: starting snapshot of /srv and /var/lib/postgresql".to_owned(),
            ),
            151..=160 => {
                let percent = (minute.rem_euclid(1440) - 150) * 10;
                self.tell("backup", minute, 0, format!("backup[77]: {percent} % done"));
            }
            161 => {
                let (files, bytes) = (400 + self.dice.below(300), 90 + self.dice.below(40));
                self.tell(
                    "backup",
                    minute,
                    5,
                    format!("backup[77]: snapshot complete: {files} new files, {bytes} MiB added"),
                );
            }
            _ => {}
        }
    }

    fn kernel(&mut self, minute: i64) {
        if self.now_and_then(4) {
            let seconds = minute * 60 + 17;
            self.tell("kernel", minute, 17, format!("kernel: [{seconds}.113243] perf: interrupt took too long (2511 > 2500), lowering kernel.perf_event_max_sample_rate to 79500"));
        }
    }
}

/// A time as access logs write it.
pub(super) fn clf(seconds: i64) -> String {
    let (of_day, days) = (seconds.rem_euclid(86_400), seconds.div_euclid(86_400));
    // Days since 2026-11-01; the simulation stays in one month.
    let day = days - 20_758 + 1;
    format!("{day:02}/Nov/2026:{:02}:{:02}:{:02} +0000", of_day / 3600, of_day / 60 % 60, of_day % 60)
}
