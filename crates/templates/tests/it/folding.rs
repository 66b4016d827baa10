//! What becomes of lines: templates, slots, roots.

use std::sync::Arc;

use logwarden_templates::{Carry, Config, End, Level, Miner, Row, Slot, SlotKind, Stream};

use crate::{NOW, fold, fold_stream, headerless, row, stream, templates};

/// The template of one line.
fn of(line: &str) -> String {
    templates(&[line]).remove(0)
}

fn together(lines: &[&str]) -> bool {
    let templates = templates(lines);
    templates.iter().all(|template| *template == templates[0])
}

#[test]
fn values_become_slots_of_a_kind() {
    let cases = [
        ("Invalid user bob from 203.0.113.7 port 4711", "Invalid user <*:user> from <*:ip> port <*:num>"),
        (
            "session opened for user root(uid=0) by (uid=0)",
            "session opened for user <*:user>(uid=<*:num>) by (uid=<*:num>)",
        ),
        ("read /etc/passwd in 12 ms", "read <*:path> in <*:duration>"),
        ("GET https://example.com/a?b=c failed", "GET <*:url> failed"),
        ("peer fe80::1 is up", "peer <*:ip> is up"),
        ("mac 02:42:ac:11:00:02 joined", "mac <*:mac> joined"),
        ("mail from alice@example.com accepted", "mail from <*:email> accepted"),
        ("resolved db.example.com", "resolved <*:host>"),
        ("started at Sat Nov 21 04:00:00 2026", "started at <*:time>"),
        ("sent 5 KB, then 7 MB", "sent <*:size>, then <*:size>"),
        ("cache=on size=12 owner=alice", "cache=on size=<*:num> owner=<*>"),
        ("lock tag=\"RILJ\" user='bob' msg=\"all is well\"", "lock tag=\"<*>\" user='<*:user>' msg=\"all is well\""),
        ("interrupt enabled........1", "interrupt enabled........<*:num>"),
        ("tags 1, 2, 3 and 4", "tags <*:num> and <*:num>"),
        ("blocked [unique_id \"INOtaoWraakUYnHe\"]", "blocked [unique_id \"<*>\"]"),
        ("trace-id: qwErtzUiop is slow", "trace-id: <*> is slow"),
        ("MAC=52:54:00:12:34:56:52:54:00:ab:cd:ef:08:00 SRC=198.51.100.16", "MAC=<*:mac> SRC=<*:ip>"),
        ("from 10.0.0.7 port 51022:11: disconnected by user", "from <*:ip> port <*:num>: disconnected by user"),
        ("at 04:07 the door was open", "at <*:time> the door was open"),
    ];
    for (line, template) in cases {
        assert_eq!(of(line), template, "{line}");
    }
}

#[test]
fn what_says_what_happened_stays() {
    let cases = [
        "HTTP GET was answered",
        "link is down",
        "operation failed with ECONNREFUSED",
        "killed by signal 9",
        "process exited with status 0",
        "errno 13 while writing",
        "Event ID 4625 was logged",
        "ORA-00942: table is missing",
        "%ASA-4-106023: Deny tcp",
        "%ASA-6-302013: Built outbound TCP connection",
        "ORA-00600: internal error code",
        "error[E0382]: borrow of moved value",
        "[MY-010068] [Server] CA certificate is self signed",
        "AH00128: File does not exist",
        "EXT4-fs error in ext4_find_entry",
        "%LINK-3-UPDOWN: Interface is down",
        "sha256 over ipv6 with http2",
    ];
    for line in cases {
        assert_eq!(of(line), line);
    }
    assert_eq!(of("done status=503 after retry"), "done status=5xx after retry");
    assert_eq!(of("unit: code=exited, status=1/FAILURE"), "unit: code=exited, status=<*:num>/FAILURE");
    let words = [
        "up",
        "down",
        "failed",
        "accepted",
        "denied",
        "refused",
        "rejected",
        "started",
        "stopped",
        "killed",
        "lost",
        "timeout",
        "invalid",
        "expired",
        "closed",
        "opened",
        "blocked",
        "allowed",
        "dropped",
        "unreachable",
    ];
    let lines: Vec<String> = words.iter().map(|word| format!("the link to the other site is {word} again")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut distinct = templates(&lines);
    distinct.dedup();
    assert_eq!(distinct.len(), words.len());
}

#[test]
fn optional_parts_and_lists_do_not_split_a_template() {
    assert!(together(&["close, 4 bytes sent, 7 bytes received", "close, 4 bytes (18.2 KB) sent, 7 bytes received"]));
    assert!(together(&["connection from 10.0.0.1 () at noon", "connection from 10.0.0.1 (a.example.com) at noon"]));
    assert!(together(&["sizes 1 2 3", "sizes 1", "sizes 1, 2, 3, 4"]));
    assert!(together(&["logname= uid=0 euid=0 done", "logname=bob uid=0 euid=0 done"]));
    assert!(together(&["lifetime <1 sec", "lifetime 12 sec"]));
}

#[test]
fn a_position_where_many_words_were_seen_is_a_slot() {
    let lines: Vec<String> =
        ["anna", "ben", "carla"].iter().map(|name| format!("mailbox of {name} was moved to the new disk")).collect();
    let miner = Miner::new(headerless());
    let delta = fold(&miner, &lines[..2]);
    assert_ne!(row(&delta, 0).root, row(&delta, 1).root);

    let delta = fold(&miner, &lines);
    assert_eq!(&*row(&delta, 0).template, "mailbox of <*:word> was moved to the new disk");
    assert!(delta.rows.iter().all(|r| r.root == delta.rows[0].root));
    let first = |row: &Row| row.slots[0].values.first().map(|first| (first.value.into_owned(), first.count)).unwrap();
    let values: Vec<_> = delta.rows.iter().map(first).collect();
    let words = ["anna", "ben", "carla"].map(|word| (word.to_owned(), 1));
    assert_eq!(values, words, "a leaf knows its word");
}

#[test]
fn known_leaves_move_up_and_the_delta_says_so() {
    let line = |name: &str| format!("mailbox of {name} was moved to the new disk");
    let mut miner = Miner::new(headerless());
    let first = fold(&miner, &[line("anna"), line("ben")]);
    miner.apply(&first);
    let second = fold(&miner, &[line("carla")]);

    let anna = row(&first, 0).leaf;
    let from = second.moves.iter().find(|m| m.leaf == anna).unwrap();
    assert_eq!((from.from, from.to), (Some(anna.as_root()), row(&second, 0).root));
    let carla = second.moves.iter().find(|m| m.leaf == row(&second, 0).leaf).unwrap();
    assert_eq!(carla.from, None, "born below a root that has just been made");
    assert_eq!(miner.root_of(anna), Some(anna.as_root()), "not applied yet");
    miner.apply(&second);
    assert_eq!(miner.root_of(anna), Some(row(&second, 0).root));
}

#[test]
fn a_line_is_from_whom_the_labels_name_else_the_line_else_the_machine_that_reads() {
    let lines = [
        "Nov 21 04:00:00 db-7 app[17]: the cache is full",
        "Nov 21 04:00:00 loghost app[17]: the cache is full",
        "203.0.113.7 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 200 31",
    ];
    let hosts = |stream: Stream| {
        let delta =
            fold_stream(&Miner::new(Config::default()), Carry::default(), &Arc::new(stream), &lines, End::Closed);
        (0..lines.len()).map(|line| row(&delta, line).origin.host.to_string()).collect::<Vec<_>>()
    };
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let read = Stream::new(labels(&[("filename", "/var/log/all")])).with_home("loghost.example.net");
    assert_eq!(hosts(read), ["db-7", "loghost.example.net", "loghost.example.net"]);
    let labelled = Stream::new(labels(&[("host", "web-1")])).with_home("loghost.example.net");
    assert_eq!(hosts(labelled), ["web-1", "web-1", "web-1"]);
}

#[test]
fn host_and_process_are_no_part_of_a_template() {
    let miner = Miner::new(Config::default());
    let delta = fold(
        &miner,
        &[
            "Nov 21 04:00:00 web-1 sshd[17]: Failed password for root from 203.0.113.7 port 22 ssh2",
            "Nov 21 04:00:01 web-2 sshd[18]: Failed password for root from 203.0.113.8 port 22 ssh2",
            "Nov 21 04:00:02 web-2 su[19]: Failed password for root from 203.0.113.8 port 22 ssh2",
        ],
    );
    assert_eq!(row(&delta, 0).leaf, row(&delta, 1).leaf);
    assert_ne!(row(&delta, 0).leaf, row(&delta, 2).leaf, "another program says another thing");
    let origins: Vec<_> = delta.rows.iter().map(|row| (&*row.origin.host, &*row.origin.service)).collect();
    assert_eq!(origins, [("web-1", "sshd"), ("web-2", "sshd"), ("web-2", "su")]);
}

#[test]
fn a_row_counts_times_levels_samples_and_values() {
    let miner = Miner::new(headerless());
    let lines: Vec<String> = (0..130).map(|n| format!("login of user{} from 203.0.113.{}", n, n % 3)).collect();
    let delta = fold(&miner, &lines);
    let [row] = delta.rows.as_slice() else { panic!("{} rows", delta.rows.len()) };
    assert_eq!((row.count, row.lines, row.first.secs(), row.last.secs()), (130, 130, NOW, NOW + 129));
    assert_eq!(row.minutes.iter().map(|(_, n)| n).collect::<Vec<_>>(), [60, 60, 10]);
    let samples: Vec<_> = row.samples.iter().map(|s| String::from_utf8_lossy(&s.text).into_owned()).collect();
    assert_eq!(samples, [&lines[0], &lines[1], &lines[2], &lines[3], &lines[129]].map(Clone::clone));
    let ip = row.slots.iter().find(|slot| slot.kind == SlotKind::Ip).unwrap();
    assert_eq!((ip.distinct, ip.values.len()), (3, 3));
    let first = ip.values.first().unwrap();
    assert_eq!((&*first.value, first.count), ("203.0.113.0", 44));
    assert_eq!(first.minutes.iter().map(|(_, n)| n).collect::<Vec<_>>(), [20, 20, 4]);
    assert_eq!(row.first_line, Some(0));
}

#[test]
fn the_worst_level_of_a_row_counts() {
    let miner = Miner::new(Config::default());
    let delta = fold(
        &miner,
        &[
            "2026-11-21 04:00:00,000 INFO [main] app.Job - job 1 ended",
            "2026-11-21 04:00:01,000 ERROR [main] app.Job - job 2 ended",
        ],
    );
    assert_eq!(delta.rows.len(), 1);
    assert_eq!(delta.rows[0].level, Some(Level::Error));
}

#[test]
fn an_access_log_becomes_routes_and_status_classes() {
    let line = |status: u16, size: &str| {
        format!(
            "203.0.113.7 - - [21/Nov/2026:04:00:00 +0000] \"GET /items/17?q=1 HTTP/1.1\" {status} {size} \"-\" \"curl/8.5.0\""
        )
    };
    let delta = fold(&Miner::new(Config::default()), &[line(200, "512"), line(204, "-"), line(503, "12")]);
    assert_eq!(row(&delta, 0).leaf, row(&delta, 1).leaf);
    assert!(row(&delta, 0).template.starts_with("GET /items/<*> 2xx client=<*:ip>"), "{}", row(&delta, 0).template);
    assert!(row(&delta, 2).template.starts_with("GET /items/<*> 5xx"));
    let balancer = |status: u16| {
        format!(
            "https 2026-11-21T04:00:00.186641Z app/shop/50dc6c495c0c9188 203.0.113.7:2817 10.0.0.1:80 0.000 0.048 0.000 \
             {status} {status} 34 57 \"GET https://shop.example.com:443/items/17?q=1 HTTP/1.1\" \"curl/8.5.0\" - -"
        )
    };
    let balanced = fold(&Miner::new(Config::default()), &[balancer(200), balancer(502)]);
    assert!(row(&balanced, 0).template.starts_with("GET /items/<*> 2xx client=<*:ip>"));
    assert!(row(&balanced, 1).template.starts_with("GET /items/<*> 5xx client=<*:ip>"));
    let status = row(&delta, 0).slots.iter().find(|slot| &*slot.key == "status").unwrap();
    assert_eq!(status.values.iter().map(|v| v.value).collect::<Vec<_>>(), ["200", "204"]);
}

#[test]
fn our_own_lines_are_counted_and_left_out() {
    let miner = Miner::new(Config::default());
    let own = stream(&[("service_name", "logwarden-analyzer")]);
    let delta = fold_stream(&miner, Default::default(), &own, &["alert sent"], logwarden_templates::End::Closed);
    assert_eq!((delta.counts.own, delta.counts.kept, delta.rows.len()), (1, 0, 0));
}

#[test]
fn an_open_event_travels_in_the_carry() {
    let miner = Miner::new(Config::default());
    let stream = stream(&[("job", "shop")]);
    let start = "2026-11-21 04:00:00,000 ERROR [main] app.Job - java.lang.IllegalStateException: broken";
    let open = logwarden_templates::End::Open(logwarden_templates::Timestamp::MIN);
    let first = fold_stream(&miner, Default::default(), &stream, &[start, "\tat app.Job.run(Job.java:12)"], open);
    assert_eq!((first.counts.carried, first.counts.kept), (2, 0));
    assert_eq!(first.assignments, [None, None]);

    let rest = ["\tat app.Main.main(Main.java:3)"];
    let second = fold_stream(&miner, first.carry, &stream, &rest, logwarden_templates::End::Closed);
    assert_eq!((second.counts.carried_in, second.counts.read, second.counts.kept), (2, 1, 3));
    assert_eq!((second.rows[0].count, second.rows[0].lines, second.rows[0].first_line), (1, 3, None));
    assert_eq!(second.carry_assignments, [Some(0)]);
}

#[test]
fn words_that_vary_are_counted_like_other_values() {
    let name = |n: usize| {
        format!("{}{}", ["al", "be", "ce", "do"][n % 4], ["x", "y", "z", "v", "w"].map(|s| s.repeat(n / 4 % 9))[n % 5])
    };
    let lines: Vec<String> =
        (0..900).map(|n| format!("Failed password for {}q from 203.0.113.9 port {n} ssh2", name(n * 7))).collect();
    let mut miner = Miner::new(headerless());
    miner.apply(&fold(&miner, &lines));
    let mut later = vec!["Failed password for mallory from 203.0.113.9 port 1 ssh2".to_owned(); 7];
    later.push("Failed password for trent from 203.0.113.9 port 1 ssh2".to_owned());
    let delta = fold(&miner, &later);
    let [row] = delta.rows.as_slice() else { panic!("{} rows", delta.rows.len()) };
    assert_eq!(&*row.template, "Failed password for <*:user> from <*:ip> port <*:num> ssh2");
    let first =
        |slot: &Slot| slot.values.first().map(|first| (slot.kind, first.value.into_owned(), first.count)).unwrap();
    let kinds: Vec<_> = row.slots.iter().map(first).collect();
    let expected = [(SlotKind::User, "mallory", 7), (SlotKind::Ip, "203.0.113.9", 8), (SlotKind::Num, "1", 8)];
    assert_eq!(kinds, expected.map(|(kind, value, count)| (kind, value.to_owned(), count)));
}
