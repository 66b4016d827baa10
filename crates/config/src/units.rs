//! Hardened systemd units, as texts: `init` writes them, and CI has systemd check them.
//!
//! All units run as the user `logwarden`, whom systemd makes up when it starts one (`DynamicUser=`): nothing has to be
//! created, and the state directory is the same for all of them. What a unit may do is what it needs: read the network's
//! answers, write its state, and read logs when files are followed.

use std::time::Duration;

/// What the units depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// The directory with the programs.
    pub bin_dir: String,
    /// The directory with `logwarden.toml`, `env` and the secrets.
    pub config_dir: String,
    /// Whether log files are followed, which takes a membership in the groups that may read them.
    pub files: bool,
    /// Secrets that exist as files of that name in the configuration's directory: `discord-webhook`.
    pub credentials: Vec<String>,
    /// How long a pass judges and delivers.
    pub budget: Duration,
    /// The program that tells about failed units: that of the two which is installed.
    pub program: String,
}

impl Default for Units {
    fn default() -> Self {
        Self {
            bin_dir: "/usr/local/bin".to_owned(),
            config_dir: "/etc/logwarden".to_owned(),
            files: false,
            credentials: Vec::new(),
            budget: Duration::from_secs(240),
            program: "logwarden-analyzer".to_owned(),
        }
    }
}

/// What reading, starting and stopping may take beside the budget.
const MARGIN: Duration = Duration::from_secs(120);

impl Units {
    /// All units, each with its file's name.
    pub fn all(&self) -> [(&'static str, String); 4] {
        [
            ("logwarden-analyzer.service", self.analyzer_service()),
            ("logwarden-analyzer.timer", self.analyzer_timer()),
            ("logwarden-failure@.service", self.failure_service()),
            ("logwarden-receiver.service", self.receiver_service()),
        ]
    }

    /// One pass.
    pub fn analyzer_service(&self) -> String {
        let Self { bin_dir, config_dir, .. } = self;
        format!(
            "[Unit]\n\
             Description=logwarden: one pass over the logs\n\
             Documentation=https://github.com/logwarden/logwarden\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             OnFailure=logwarden-failure@%N.service\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             ExecStart={bin_dir}/logwarden-analyzer run --config {config_dir}/logwarden.toml\n\
             # More than the pass's budget (run.budget_seconds), so that systemd never has to cut one short.\n\
             TimeoutStartSec={}\n\
             Nice=10\n\
             MemoryMax=512M\n\
             {}{}",
            (self.budget + MARGIN).as_secs(),
            self.identity(self.files),
            hardening("AF_INET AF_INET6 AF_UNIX", !self.files),
        )
    }

    /// Every five minutes, and at once after the machine was off.
    pub fn analyzer_timer(&self) -> String {
        "[Unit]\n\
         Description=logwarden: a pass every five minutes\n\
         \n\
         [Timer]\n\
         OnCalendar=*:0/5\n\
         Persistent=true\n\
         AccuracySec=1s\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n"
            .to_owned()
    }

    /// Tells about a unit that failed; works for units of others, too: `OnFailure=logwarden-failure@%N.service`.
    pub fn failure_service(&self) -> String {
        let Self { bin_dir, config_dir, program, .. } = self;
        format!(
            "[Unit]\n\
             Description=logwarden: tell that %i has failed\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             ExecStart={bin_dir}/{program} notify-failure --config {config_dir}/logwarden.toml %i\n\
             TimeoutStartSec=120\n\
             MemoryMax=256M\n\
             {}{}",
            // The unit's last error is in the journal.
            self.identity(true),
            hardening("AF_INET AF_INET6 AF_UNIX", false),
        )
    }

    /// The receiver of pushed logs.
    pub fn receiver_service(&self) -> String {
        let Self { bin_dir, config_dir, .. } = self;
        format!(
            "[Unit]\n\
             Description=logwarden: receives logs\n\
             Documentation=https://github.com/logwarden/logwarden\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             OnFailure=logwarden-failure@%N.service\n\
             \n\
             [Service]\n\
             # It says when it listens, and every half minute that it is alive; if it does not, it is started anew.\n\
             Type=notify\n\
             NotifyAccess=main\n\
             WatchdogSec=60\n\
             ExecStart={bin_dir}/logwarden-receiver serve --config {config_dir}/logwarden.toml\n\
             Restart=on-failure\n\
             RestartSec=5\n\
             # A wrong configuration stays wrong.\n\
             RestartPreventExitStatus=2\n\
             # Checking the state after a power cut takes a while.\n\
             TimeoutStartSec=300\n\
             # Requests under way are finished, and what is due is told.\n\
             TimeoutStopSec=45\n\
             MemoryMax=1G\n\
             {}{}\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            self.identity(false),
            hardening("AF_INET AF_INET6 AF_UNIX", true),
        )
    }

    /// Who the unit runs as, what it may write, and where settings and secrets are from.
    fn identity(&self, reads_logs: bool) -> String {
        let config_dir = &self.config_dir;
        let mut text = format!(
            "\n\
             User=logwarden\n\
             DynamicUser=yes\n\
             StateDirectory=logwarden\n\
             StateDirectoryMode=0700\n\
             # Remembers what was told about failed units while the state cannot be used.\n\
             RuntimeDirectory=logwarden\n\
             RuntimeDirectoryMode=0700\n\
             RuntimeDirectoryPreserve=yes\n\
             UMask=0077\n\
             EnvironmentFile=-{config_dir}/env\n"
        );
        if reads_logs {
            text.push_str("SupplementaryGroups=adm systemd-journal\n");
        }
        if self.credentials.is_empty() {
            text.push_str(&format!(
                "# Secrets: a file that only root may read, handed over without being in the environment.\n\
                 #LoadCredential=discord-webhook:{config_dir}/discord-webhook\n"
            ));
        }
        for name in &self.credentials {
            text.push_str(&format!("LoadCredential={name}:{config_dir}/{name}\n"));
        }
        text
    }
}

/// Everything that the unit does not need is taken away. Users of its own hide who owns a file, and with that the groups
/// that may read logs.
fn hardening(address_families: &str, private_users: bool) -> String {
    let private_users = if private_users { "yes" } else { "no" };
    format!(
        "\n\
         CapabilityBoundingSet=\n\
         AmbientCapabilities=\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         PrivateTmp=yes\n\
         PrivateDevices=yes\n\
         PrivateUsers={private_users}\n\
         DevicePolicy=closed\n\
         ProtectProc=invisible\n\
         ProcSubset=pid\n\
         ProtectClock=yes\n\
         ProtectControlGroups=yes\n\
         ProtectHostname=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelTunables=yes\n\
         RestrictAddressFamilies={address_families}\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         RemoveIPC=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         KeyringMode=private\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service\n\
         SystemCallFilter=~@privileged @resources\n\
         SystemCallErrorNumber=EPERM\n\
         TasksMax=64\n\
         LimitNOFILE=4096\n"
    )
}
