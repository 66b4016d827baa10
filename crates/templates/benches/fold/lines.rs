//! Log lines made for measuring: 16 shapes with ever new values.

/// Makes lines; the same ones for the same seed.
pub(crate) struct Lines {
    state: u64,
    seconds: u64,
}

impl Lines {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, seconds: 0 }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn ip(&mut self) -> String {
        format!("{}.{}.{}.{}", 1 + self.next(222), self.next(256), self.next(256), 1 + self.next(254))
    }

    /// A word without digits that has hardly ever been there.
    pub(crate) fn word(&mut self) -> String {
        let syllables =
            ["ba", "ko", "ri", "me", "tu", "sa", "no", "vel", "dor", "pim", "hax", "ly", "qui", "zen", "gar", "fo"];
        (0..5).map(|_| syllables[self.next(16) as usize]).collect()
    }

    /// The next line, of shape `number % 16`.
    pub(crate) fn line(&mut self, number: usize) -> String {
        self.seconds += u64::from(number.is_multiple_of(40));
        let (h, m, s) = (self.seconds / 3600 % 24, self.seconds / 60 % 60, self.seconds % 60);
        let (day, ms) = (1 + self.seconds / 86_400 % 28, self.next(1000));
        let syslog = format!("Nov {day:2} {h:02}:{m:02}:{s:02} web-{}", 1 + number % 4);
        let iso = format!("2026-11-{day:02} {h:02}:{m:02}:{s:02}");
        let (pid, port, ip, n) =
            (1000 + self.next(60_000), 1024 + self.next(64_000), self.ip(), self.next(1_000_000_000));
        match number % 16 {
            0 => format!(
                "{syslog} sshd[{pid}]: Failed password for invalid user {} from {ip} port {port} ssh2",
                self.word()
            ),
            1 => format!(
                "{syslog} sshd[{pid}]: Accepted publickey for deploy from {ip} port {port} ssh2: ED25519 SHA256:{n:x}"
            ),
            2 => format!(
                "{syslog} kernel: [{n}.{ms:06}] [UFW BLOCK] IN=eth0 OUT= MAC=02:42:ac:11:00:{:02x} SRC={ip} DST=10.0.0.4 LEN={} TOS=0x00 TTL={} ID={pid} PROTO=TCP SPT={port} DPT=22 WINDOW=65535",
                n % 256,
                40 + n % 1400,
                n % 255
            ),
            3 => format!("{syslog} postfix/smtpd[{pid}]: connect from unknown[{ip}]"),
            4 => format!("{syslog} systemd[1]: Started Session {n} of user {}.", self.word()),
            5 => format!("{syslog} CRON[{pid}]: (root) CMD (/usr/local/bin/backup --run {n} --quiet)"),
            6 => format!(
                "{ip} - - [{day:02}/Nov/2026:{h:02}:{m:02}:{s:02} +0000] \"GET /api/v1/items/{n}?page={ms} HTTP/1.1\" 200 {} \"-\" \"curl/8.{}\"",
                n % 90_000,
                n % 9
            ),
            7 => format!(
                "{iso},{ms:03} INFO [http-nio-8080-exec-{}] com.example.shop.OrderService - Order {n} of customer {pid} placed in {} ms",
                n % 64,
                n % 900
            ),
            8 => format!(
                "{iso},{ms:03} WARN [scheduler-{}] com.example.shop.CacheLoader - Cache entry {:016x} expired after {} s, reloading",
                n % 8,
                n.wrapping_mul(0x9e37_79b9),
                n % 86_400
            ),
            9 => format!(
                "{iso}.{ms:03} UTC [{pid}] LOG:  duration: {}.{ms:03} ms  statement: SELECT id FROM orders WHERE customer = {n}",
                n % 5000
            ),
            10 => format!(
                "{iso} {pid} [Note] Aborted connection {n} to db: 'shop' user: '{}' host: '{ip}' (Got timeout reading communication packets)",
                self.word()
            ),
            11 => format!(
                "time=\"2026-11-{day:02}T{h:02}:{m:02}:{s:02}Z\" level=info msg=\"request handled\" path=/v2/users/{n} status=200 duration={ms}ms"
            ),
            12 => format!(
                "{{\"time\":\"2026-11-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z\",\"level\":\"info\",\"msg\":\"job {n} finished\",\"worker\":{pid},\"took_ms\":{ms}}}"
            ),
            13 => format!(
                "081109 {h:02}{m:02}{s:02} {pid} INFO dfs.DataNode$PacketResponder: Received block blk_-{n} of size {} from /{ip}",
                n % 67_108_864
            ),
            14 => format!(
                "[{iso}] [error] [client {ip}:{port}] File does not exist: /var/www/html/{}/{n}.php",
                self.word()
            ),
            _ => format!(
                "I1121 {h:02}:{m:02}:{s:02}.{ms:03}000 {pid:7} controller.go:{}] Reconciled deployment default/{} in {ms}ms, {} replicas ready",
                10 + n % 900,
                self.word(),
                n % 12
            ),
        }
    }
}
