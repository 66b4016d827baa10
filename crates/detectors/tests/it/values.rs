//! What was never there: a service, an image, a user.

use crate::silence::{Entry, LEARNED, Source};

/// Services that are started each day, and one image.
fn usual(minute: i64) -> Vec<Entry> {
    let mut entries = vec![("web-1", minute, "app: heartbeat".to_owned())];
    if minute % 1440 == 60 {
        for unit in ["nginx", "shop"] {
            entries.push(("web-1", minute, format!("systemd[1]: Started {unit}.service - {unit}.")));
        }
        entries.push(("web-1", minute, "kubelet[9]: Successfully pulled image \"shop/web:1.4\" in 2s".to_owned()));
        entries.push(("web-1", minute, "CRON[9]: (root) CMD (/usr/local/bin/backup)".to_owned()));
    }
    entries
}

#[test]
fn a_new_service_and_image_are_listed_and_a_new_user_is_told() {
    let mut source = Source::new();
    assert_eq!(source.live(0..LEARNED, usual), []);
    let found = source.live(LEARNED..LEARNED + 10, |minute| {
        let mut entries = usual(minute);
        if minute == LEARNED + 2 {
            for text in [
                "systemd[1]: Started xmrig.service - miner.",
                "systemd[1]: Started run-r81.service - /bin/true.",
                "systemd[1]: Started shop.service - shop.",
                "kubelet[9]: Successfully pulled image \"evil/miner:latest\" in 2s",
                "kubelet[9]: Successfully pulled image \"shop/web:1.5\" in 2s",
                "CRON[9]: (mallory) CMD (/home/mallory/report)",
            ] {
                entries.push(("web-1", minute, text.to_owned()));
            }
        }
        entries
    });
    let titles: Vec<_> = found.iter().map(|(_, title)| title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "medium: mallory was never seen here before: a service",
            "low: The service xmrig was never seen here before",
            "low: The container image evil/miner was never seen here before",
        ]
    );
}
