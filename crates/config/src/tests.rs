//! What a user meets: a file with mistakes, an old `.env`, secrets in several places, the reference, the units.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use secrecy::ExposeSecret;

use crate::{
    Checked, Files, Input, MemoryFiles, Mistakes, Secret,
    document::Notes,
    keys::{self, SECTIONS},
    read,
    units::Units,
};

fn check(text: &str, env: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Checked, Mistakes> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let lookup = |name: &str| env.get(name).map(|value| (*value).to_owned());
    let files = MemoryFiles(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect());
    let file = (!text.is_empty()).then(|| (PathBuf::from("logwarden.toml"), text.to_owned()));
    read(&Input { file, env: &lookup, files: &files })
}

fn mistakes(text: &str, env: &[(&str, &str)]) -> String {
    check(text, env, &[("/etc/logwarden/all.open", "https://hooks.example.org/s3cret")]).unwrap_err().to_string()
}

fn value(secret: &Secret) -> &str {
    secret.value.expose_secret()
}

const TUTORIAL: &[(&str, &str)] = &[
    ("LOKI_URL", "http://localhost:3100"),
    ("LOG_QUERIES", r#"{job="syslog"};{job="nginx"} |= "error";{job="auth"} |~ "fail;ed""#),
    ("QUERY_WINDOW_MINUTES", "5"),
    ("QUERY_LIMIT", "500"),
    ("OLLAMA_HOST", "http://localhost:11434"),
    ("OLLAMA_MODEL", "llama3.1:8b"),
    ("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/YOUR_WEBHOOK_ID/YOUR_WEBHOOK_TOKEN"),
    ("SLACK_WEBHOOK_URL", ""),
    ("DEDUP_WINDOW", "3600"),
    ("DEDUP_FILE", "/tmp/log-analyzer-dedup.json"),
];

#[test]
fn the_env_file_of_the_tutorial_works_unchanged() {
    let Checked { config, warnings, .. } = check("", TUTORIAL, &[]).unwrap();
    insta::assert_debug_snapshot!(warnings, @r#"
    [
        "DEDUP_FILE is no longer used: what was told is kept in the state directory",
    ]
    "#);
    let loki = config.loki.unwrap();
    let queries: Vec<_> = loki.queries.iter().map(|query| query.query.as_str()).collect();
    assert_eq!(queries, [r#"{job="syslog"}"#, r#"{job="nginx"} |= "error""#, r#"{job="auth"} |~ "fail;ed""#]);
    assert_eq!((loki.url.as_str(), loki.window.as_secs(), loki.limit), ("http://localhost:3100", 300, 500));
    assert_eq!(config.model.host.map(|host| host.origin()).as_deref(), Some("http://localhost:11434"));
    assert_eq!(config.model.name.as_deref(), Some("llama3.1:8b"));
    assert_eq!(config.alerts.window.as_secs(), 3600);
    // Whoever wires the channels skips the placeholder; the empty one is off.
    let channels: Vec<_> = config.channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(channels, ["discord"]);
}

#[test]
fn nothing_at_all_is_enough() {
    let Checked { config, warnings, .. } = check("", &[], &[]).unwrap();
    let loki = config.loki.unwrap();
    let queries: Vec<_> = loki.queries.iter().map(|query| query.query.as_str()).collect();
    assert_eq!(queries, [r#"{job="syslog"}"#, r#"{job="nginx"} |= "error""#]);
    assert_eq!(loki.url, "http://localhost:3100");
    assert_eq!(config.pass_budget.as_secs(), 240);
    assert!(config.channels.is_empty() && warnings.is_empty());
}

#[test]
fn with_files_alone_there_is_no_loki() {
    let config = check("files = [\"/var/log/syslog\"]\n[loki]\n[discord]\n", &[], &[]).unwrap().config;
    assert!(config.loki.is_none());
    assert_eq!(config.files[0].paths, ["/var/log/syslog"]);
}

#[test]
fn the_variable_for_files_replaces_those_of_the_file() {
    let env = [("LOG_FILES", "/var/log/auth.log; /var/log/nginx/*.log"), ("LOG_PROFILES", "security, performance")];
    let config = check("files = [\"/var/log/syslog\"]", &env, &[]).unwrap().config;
    let [group] = &config.files[..] else { panic!("{:?}", config.files) };
    assert_eq!(group.paths, ["/var/log/auth.log", "/var/log/nginx/*.log"]);
    let profiles: Vec<_> = group.profiles.iter().map(|profile| profile.as_str()).collect();
    assert_eq!(profiles, ["security", "performance"]);
}

#[test]
fn every_mistake_is_told_at_once_with_its_line_and_what_to_do() {
    let text = r#"
trial = "/var/log/trail"

[loki]
url = "localhost:3100"
querys = ['{job="syslog"}']
queries = ['rate({job="syslog"}[5m])', { query = '{job="auth"}', profiles = ["securty"] }]
limit = 0
user = "bob"

[[files]]
paths = []
timezone = "Europe/Berlim"

[model]
enabled = "yes"
keep_alive = "ten minutes"
hours = "late"
host = "http://bob:hunter2@gpu-box"

[discord]
url = "https://discord.com/api/webhooks/1/s3cret"
min_severity = "urgent"

[slack]
url_file = "/etc/logwarden/all.open"

[[channels]]
kind = "discort"

[[channels]]
name = "Night Shift"
kind = "slack"

[grafana]
url = "https://grafana.example.org"

[redact]
patterns = ["(open"]

[receiver]
listen = "5000"
key_file = "/etc/logwarden/tls.key"
insecure_allow = ["192.168.0.0/33"]
[[receiver.clients]]
name = "web-1"
token_sha256 = ["secret"]

[profiles.mail]
"#;
    insta::assert_snapshot!(mistakes(text, &[("DEDUP_WINDOW", "an hour"), ("MODEL_ENABLED", "")]), @r#"
    cannot use the configuration (27 mistakes)
      logwarden.toml:2: trial is not a key that logwarden knows
        hint: did you mean `trail`?
      logwarden.toml:5: loki.url is not an http or https address
        hint: for example http://localhost:3100
      logwarden.toml:6: loki.querys is not a key that logwarden knows
        hint: did you mean `queries`?
      logwarden.toml:7: loki.queries has `rate({job="syslog"}[5m])`, which is not a log query: it must begin with a selector
        hint: for example {job="syslog"}
      logwarden.toml:7: loki.queries[1].profiles names the profile `securty`, which does not exist
        hint: did you mean `security`?
      logwarden.toml:8: loki.limit must be a whole number from 1 to 100000
      logwarden.toml:9: loki.user is set without a password
        hint: set loki.password_file, or the environment variable LOKI_PASSWORD
      logwarden.toml:11: files[0].paths names no file
        hint: for example paths = ["/var/log/syslog"]
      logwarden.toml:13: files[0].timezone is not a time zone of this machine's database
        hint: an IANA name such as Europe/Berlin, or UTC
      logwarden.toml:16: model.enabled must be true or false, not a string
      logwarden.toml:17: model.keep_alive is no duration: expected seconds or something like `10m`, `1h30m` or `-1`, or `server`
      logwarden.toml:18: model.hours is no time of day
        hint: for example "22:00-06:00"
      logwarden.toml:19: model.host has a password in it, which does not belong in this file
        hint: put the address into OLLAMA_HOST, or use model.bearer_file
      logwarden.toml:22: discord.url is a secret and does not belong in this file
        hint: put it in a file of mode 0600 and name that: url_file = "/etc/logwarden/discord-webhook"
      logwarden.toml:23: discord.min_severity must be low, medium, high or critical
      logwarden.toml:26: slack.url_file names a file that everybody may read
        hint: chmod o-rwx /etc/logwarden/all.open
      logwarden.toml:28: channels[0].name is missing
      logwarden.toml:29: channels[0].kind must be discord, slack or webhook
        hint: did you mean `discord`?
      logwarden.toml:32: channels[1].name is not a name for a channel
        hint: small letters, digits, `-` and `_`, at most 40
      logwarden.toml:36: grafana.url is set without datasource_uid
        hint: open the Loki data source in Grafana: its uid is the last part of the address
      logwarden.toml:39: redact.patterns has an element that is no regular expression: unclosed group
      logwarden.toml:42: receiver.listen is not an address to listen at
        hint: an address of this machine and a port: 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000
      logwarden.toml:43: receiver.certificate_file is missing
        hint: a certificate and its key belong together
      logwarden.toml:44: receiver.insecure_allow has an element that is not a network: write 10.0.0.0/8, 192.168.1.7 or fd00::/8
      logwarden.toml:47: receiver.clients[0].token_sha256 is not a hash: write the 64 digits that `printf %s TOKEN | sha256sum` prints
      logwarden.toml:49: profiles.mail.instructions is missing
        hint: say in a few sentences what to look for
      environment variable DEDUP_WINDOW: alerts.window_seconds must be a whole number from 1 to 2592000
    "#);
}

#[test]
fn what_is_no_toml_is_told_with_its_line_and_without_its_text() {
    let text = "[discord]\nurl = https://discord.com/api/webhooks/1/s3cret\n[loki]\nlimit = = 3\n";
    insta::assert_snapshot!(mistakes(text, &[]), @r#"
    cannot use the configuration (3 mistakes)
      logwarden.toml:2: is not TOML: string values must be quoted, expected literal string
      logwarden.toml:4: is not TOML: extra `=`, expected nothing
      logwarden.toml:4: is not TOML: unexpected key or value, expected newline, `#`
    "#);
}

#[test]
fn no_message_and_no_debug_output_holds_a_secret() {
    let env = [
        ("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/1/s3cret"),
        ("LOKI_URL", "http://bob:s3cret@loki.example.org"),
        ("LOKI_BEARER_TOKEN", "s3cret"),
        ("WEBHOOK_SECRET", "s3cret"),
    ];
    let text = "[slack]\nurl = \"https://hooks.slack.com/services/s3cret\"\n[webhook]\nsecret = \"s3cret\"\n\
                [loki]\npassword = \"s3cret\"\nbearer = 's3cret'\n[ollama]\nbearer = \"s3cret\"\n";
    let told = mistakes(text, &env);
    assert!(!told.contains("s3cret"), "{told}");
    assert!(told.contains("loki.password is a secret and does not belong in this file"), "{told}");
    let env = [("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/1/s3cret"), ("LOKI_BEARER_TOKEN", "s3cret")];
    let checked = check("", &env, &[]).unwrap();
    assert!(!format!("{checked:?}").contains("s3cret"), "{checked:?}");
}

#[test]
fn a_secret_is_a_credential_before_a_file_before_the_environment() {
    let text = "[discord]\nurl_file = \"/etc/logwarden/discord-webhook\"\n";
    let variable = ("DISCORD_WEBHOOK_URL", "https://of.the.environment");
    let directory = ("CREDENTIALS_DIRECTORY", "/run/credentials/x");
    let file = ("/etc/logwarden/discord-webhook", "https://of.the.file\n");
    let credential = ("/run/credentials/x/discord-webhook", "https://of.the.credential\n");

    let all = check(text, &[variable, directory], &[file, credential]).unwrap().config;
    assert_eq!(value(&all.channels[0].address), "https://of.the.credential");
    assert_eq!(all.channels[0].address.origin, "credential discord-webhook");
    let none = check(text, &[variable, directory], &[file]).unwrap().config;
    assert_eq!(value(&none.channels[0].address), "https://of.the.file");
    let env = check("", &[variable], &[file]).unwrap().config;
    assert_eq!(value(&env.channels[0].address), "https://of.the.environment");
}

#[test]
fn a_secret_under_another_name_is_led_to_its_file() {
    let text = "[slack]\nwebhook_url = \"https://hooks.slack.com/services/T0/B0/s3cret\"\n[loki]\ntoken = \"s3cret\"\n";
    insta::assert_snapshot!(mistakes(text, &[]), @"
    cannot use the configuration (3 mistakes)
      logwarden.toml:1: slack.url_file is missing: the channel has no address
        hint: put the webhook's address in a file that only logwarden can read, or in the environment variable SLACK_WEBHOOK_URL
      logwarden.toml:2: slack.webhook_url is not a key that logwarden knows
        hint: a secret does not stand here: put it into a file that only you may read, and name that by `url_file`; or set its environment variable
      logwarden.toml:4: loki.token is not a key that logwarden knows
        hint: a secret does not stand here: put it into a file that only you may read, and name that by `bearer_file`; or set its environment variable
    ");
}

#[test]
fn a_token_that_came_as_a_credential_is_not_read_from_the_file_again() {
    let text = "[loki]\nbearer_file = \"/etc/logwarden/loki-bearer\"\n";
    let directory = ("CREDENTIALS_DIRECTORY", "/run/credentials/x");
    let files = [("/etc/logwarden/loki-bearer", "token"), ("/run/credentials/x/loki-bearer", "token")];
    let file = |env: &[(&str, &str)]| check(text, env, &files).unwrap().config.loki.unwrap().bearer_file;
    assert_eq!(file(&[directory]), None);
    assert_eq!(file(&[]).as_deref(), Some(Path::new("/etc/logwarden/loki-bearer")));
}

#[test]
fn every_channel_has_secrets_of_its_own() {
    let text = "[[channels]]\nname = \"night-shift\"\nkind = \"webhook\"\n\
                [[channels]]\nname = \"day\"\nkind = \"webhook\"\n";
    let env = [
        ("NIGHT_SHIFT_WEBHOOK_URL", "https://night"),
        ("NIGHT_SHIFT_WEBHOOK_SECRET", "of the night"),
        ("DAY_WEBHOOK_URL", "https://day"),
        ("WEBHOOK_SECRET", "of nobody"),
    ];
    let channels = check(text, &env, &[]).unwrap().config.channels;
    assert_eq!(channels[0].signing.iter().map(value).collect::<Vec<_>>(), ["of the night"]);
    assert!(channels[1].signing.is_empty());
}

#[test]
fn a_secret_that_everybody_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("webhook");
    std::fs::write(&path, "https://hooks.example.org/s3cret").unwrap();
    let refused = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        crate::DiskFiles.is_open_to_others(&path)
    };
    assert!(refused(0o644) && refused(0o604) && !refused(0o640) && !refused(0o400));
    insta::assert_snapshot!(mistakes("[webhook]\nurl_file = \"/etc/logwarden/all.open\"\n", &[]), @r#"
    cannot use the configuration (1 mistake)
      logwarden.toml:2: webhook.url_file names a file that everybody may read
        hint: chmod o-rwx /etc/logwarden/all.open
    "#);
}

/// Everything in the commented file, switched on.
fn switched_on() -> String {
    let is_setting = |line: &str| line.starts_with("#[") || line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let is_text = |line: &&str| is_setting(line) || !line.starts_with('#');
    let lines = keys::commented_file();
    lines.lines().filter(is_text).map(|line| format!("{}\n", line.trim_start_matches('#'))).collect()
}

fn is_key(text: &str) -> bool {
    text.starts_with('#')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

const SECRET_FILES: &[(&str, &str)] = &[
    ("/etc/logwarden/discord-webhook", "https://d"),
    ("/etc/logwarden/slack-webhook", "https://s"),
    ("/etc/logwarden/webhook", "https://w"),
    ("/etc/logwarden/webhook-secret", "new"),
    ("/etc/logwarden/webhook-old-secret", "old"),
    ("/etc/logwarden/night-shift-webhook", "https://n"),
    ("/etc/logwarden/night-shift-secret", "new"),
    ("/etc/logwarden/night-shift-old-secret", "old"),
    ("/etc/logwarden/loki-password", "x"),
    ("/etc/logwarden/loki-bearer", "x"),
    ("/etc/logwarden/loki-client.pem", "x"),
    ("/etc/logwarden/ollama-bearer", "x"),
];

#[test]
fn the_commented_file_changes_nothing_and_can_be_switched_on() {
    let nothing = check(&keys::commented_file(), &[], &[]).unwrap();
    assert_eq!(format!("{nothing:?}"), format!("{:?}", check("", &[], &[]).unwrap()));
    let text = switched_on();
    let all = check(&text, &[], SECRET_FILES).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}")).config;
    let names: Vec<_> = all.channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(names, ["discord", "slack", "webhook", "night-shift"]);
    assert_eq!(all.profiles.len() + all.files.len(), 2);
}

#[test]
fn the_reference_has_every_key_that_is_read_and_no_other() {
    let text = switched_on();
    let files = MemoryFiles(SECRET_FILES.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect());
    let variables = std::cell::RefCell::new(BTreeSet::new());
    let env = |name: &str| {
        variables.borrow_mut().insert(name.to_owned());
        None
    };
    let notes = Notes::new("logwarden.toml", &text, &env);
    let input = Input { file: None, env: &env, files: &files };
    crate::read::document(&notes, &input);
    // The files of the example hide the variables that hold secrets.
    crate::read::document(&Notes::new("", "[[channels]]\nname = \"night-shift\"\nkind = \"webhook\"", &env), &input);
    let mut asked = notes.asked();
    let (mut documented, mut documented_variables) = (BTreeSet::new(), BTreeSet::new());
    for section in SECTIONS {
        let table = section.header.trim_matches(['[', ']']).replace("NAME", "mail");
        let table = if section.header.starts_with("[[") { format!("{table}[]") } else { table };
        let ends = table.match_indices('.').map(|(at, _)| at).chain([table.len()]);
        documented.extend(ends.map(|end| table[..end].trim_end_matches("[]").to_owned()));
        for key in section.keys {
            documented.insert(if table.is_empty() { key.name.to_owned() } else { format!("{table}.{}", key.name) });
            documented_variables.insert(key.variable.replace("NAME", "NIGHT_SHIFT"));
        }
    }
    let tables = ["profiles.mail", ""];
    asked.retain(|name| !tables.contains(&name.as_str()));
    documented.retain(|name| !tables.contains(&name.as_str()));
    assert_eq!(asked, documented);
    documented_variables.remove("");
    let mut variables = variables.into_inner();
    for other in ["CREDENTIALS_DIRECTORY", "DEDUP_FILE"] {
        variables.remove(other);
    }
    assert_eq!(variables, documented_variables);
}

#[test]
fn the_page_in_docs_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- keys: made from crates/config/src/keys.rs -->\n", "<!-- end of keys -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let wanted = format!("{before}{begin}\n{}{end}{after}", keys::reference());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    } else {
        assert!(page == wanted, "docs/configuration.md is outdated: UPDATE=1 cargo test -p logwarden-config writes it");
    }
}

/// Where systemd is installed, it reads the units as it would at boot, and scores them. CI has it.
#[test]
fn systemd_understands_the_units_and_finds_little_exposed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for files in [false, true] {
        let bin_dir = directory.path().display().to_string();
        let credentials = if files { vec!["discord-webhook".to_owned()] } else { Vec::new() };
        let units = Units { bin_dir, files, credentials, ..Units::default() };
        for program in ["logwarden-analyzer", "logwarden-receiver"] {
            let path = directory.path().join(program);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut paths = Vec::new();
        for (name, text) in units.all() {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            paths.push(path);
        }
        let analyze = |arguments: &[&str], paths: &[PathBuf]| {
            let output = Command::new("systemd-analyze").args(arguments).args(paths).output().unwrap();
            let text =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            assert!(output.status.success(), "systemd-analyze {arguments:?}: {text}");
            text
        };
        let told = analyze(&["verify", "--man=no", "--recursive-errors=yes"], &paths);
        assert!(!told.contains("logwarden"), "{told}");
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "service")) {
            analyze(&["security", "--offline=true", "--threshold=15"], std::slice::from_ref(path));
        }
    }
}

#[test]
fn the_units() {
    for (name, text) in Units::default().all() {
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn brackets_ranges_and_files_of_secrets_are_told_with_what_to_do() {
    let said = mistakes("[files]\npaths = [\"/var/log/syslog\"]\n[[model]]\nname = \"m\"\n", &[]);
    insta::assert_snapshot!(said, @r"
    cannot use the configuration (2 mistakes)
      logwarden.toml:1: files must be a list, not a table
        hint: there may be several: write [[files]], with two brackets at each end
      logwarden.toml:3: model must be a table, not an array
        hint: there is one of it: write [model]
    ");
    let said = mistakes("[loki]\nlimit = \"many\"\n[discord]\nurl_file = \"/etc/logwarden/discord\"\n", &[]);
    insta::assert_snapshot!(said, @r"
    cannot use the configuration (2 mistakes)
      logwarden.toml:2: loki.limit must be a whole number from 1 to 100000, not a string
      logwarden.toml:4: discord.url_file names the file /etc/logwarden/discord, which cannot be read: entity not found
        hint: write the secret into it: (umask 077; cat > /etc/logwarden/discord), paste, Enter, Ctrl-D
    ");
}

#[test]
fn the_variables_that_count_are_named() {
    let of = |env: &[(&str, &str)]| check("[loki]\nlimit = 5\n", env, &[]).unwrap().variables;
    assert_eq!(of(&[("HOME", "/root"), ("CREDENTIALS_DIRECTORY", "/run/c"), ("LOKI_URL", "")]), Vec::<String>::new());
    assert_eq!(of(&[("LOKI_URL", "http://loki:3100"), ("HOME", "/root")]), ["LOKI_URL"]);
}
