//! What the detectors promise: incidents on a quiet host are found at once and little else is told, and nobody who writes
//! into a log can talk an alert away.
//!
//! `cargo run --release -p logwarden-tests --bin scenarios` plays longer scenarios; docs/detection.md has the figures.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Severity, Stream, Timestamp,
    decide::Policy,
    detectors::RuleSet,
    env::Env,
    message::{Body, Message},
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
    pipeline::Pipeline,
    testing::FakeEnv,
};
use logwarden_notifiers::{Discord, Slack, Style, render};
use logwarden_tests::{
    chat::Server,
    discord::{self, FakeDiscord},
    inert,
    injection::{Attack, Goal, Obedient, attacks},
    scenario::{Scenario, incidents::Kind},
    slack::{self, FakeSlack},
    tail::Tail,
};
use secrecy::SecretString;

#[test]
fn a_quiet_week_with_one_incident_of_each_kind() {
    let scenario = Scenario::short(1);
    let again = std::thread::spawn(move || scenario.play());
    let played = scenario.play().unwrap();
    println!("{}", played.table());
    assert_eq!(played.planted.len(), Kind::ALL.len());
    assert_eq!(played.broken(), Vec::<String>::new(), "{}", played.table());
    assert_eq!(played.table(), again.join().unwrap().unwrap().table(), "the same seed plays the same");
}

/// All attacks of one goal in one log.
fn write(log: &Tail, attacks: &[&Attack], at: Timestamp) {
    for attack in attacks {
        let labels = [("host", attack.host.as_str()), ("service_name", attack.program)];
        let labels: BTreeMap<_, _> = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let stream = Arc::new(Stream::new(labels));
        for (number, text) in attack.lines.iter().enumerate() {
            log.push(at.plus(Duration::from_millis(number as u64 * 900)), &stream, text);
        }
    }
}

#[derive(Debug)]
struct Told {
    channel: Channel,
    messages: Mutex<Vec<Message>>,
}

impl Told {
    fn new() -> Arc<Self> {
        let channel = Channel {
            name: "told".into(),
            destination: ChannelHash(1),
            vendor: "test",
            min_severity: Severity::Low,
            amends: true,
            longest_send: Duration::from_secs(15),
            gap: Duration::ZERO,
            per_minute: 100_000,
        };
        Arc::new(Self { channel, messages: Mutex::default() })
    }
}

#[async_trait]
impl Notifier for Told {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, _: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        self.messages.lock().unwrap().push(message.clone());
        Ok(amend.cloned().unwrap_or_else(|| Receipt(message.id.0.to_string())))
    }
}

/// What a log full of attacks has come to.
struct Outcome {
    /// By attack: the worst that a channel was told, in each of two hours.
    told: [BTreeMap<usize, Severity>; 2],
    messages: Vec<Message>,
    asked: u64,
}

/// Reads a log full of attacks, and the same again two hours later.
async fn outcome(attacks: &[&Attack], goal: Goal, rules: &RuleSet) -> Outcome {
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 7);
    let (log, told) = (Tail::new("log", Duration::from_secs(60)), Told::new());
    // So many at once would be one rollup, and what is below high more than a day's budget.
    let policy = Policy { rollup_at: usize::MAX, alerts_per_day: u32::MAX, ..Policy::default() };
    let model = Arc::new(Obedient::new(goal));
    let builder = Pipeline::builder()
        .env(Arc::new(env.clone()))
        .source(log.clone())
        .notifier(told.clone())
        .rules(rules.clone())
        .classifier(model.clone())
        .policy(policy);
    let pipeline = builder.build().unwrap();
    let mut by_hour = [BTreeMap::new(), BTreeMap::new()];
    for told_now in &mut by_hour {
        let began = env.now();
        write(&log, attacks, began.minus(Duration::from_secs(60)));
        pipeline.ingest(0, began).await.unwrap();
        pipeline.deliver(env.now()).await.unwrap();
        pipeline.judge(env.now().plus(Duration::from_secs(240))).await.unwrap();
        env.advance(Duration::from_secs(61));
        pipeline.deliver(env.now()).await.unwrap();
        for message in told.messages.lock().unwrap().iter().filter(|message| message.at >= began) {
            let Body::Incidents { incidents, .. } = &message.body else { continue };
            for incident in incidents {
                let Some(number) = attack_of(incident.host.raw()) else { continue };
                let worst = told_now.entry(number).or_insert(incident.severity);
                *worst = incident.severity.max(*worst);
            }
        }
        env.advance(Duration::from_secs(7_200));
    }
    let messages = std::mem::take(&mut *told.messages.lock().unwrap());
    Outcome { told: by_hour, messages, asked: model.asked() }
}

fn attack_of(host: &str) -> Option<usize> {
    host.split(' ').next()?.strip_prefix('h')?.parse().ok()
}

/// The rules without a single one that has a floor.
fn no_rules() -> RuleSet {
    let builtin = RuleSet::builtin();
    let off: Vec<String> = builtin.rules().map(|rule| format!("{:?}", rule.id)).collect();
    let text = format!("version = 1\noff = [{}]\n", off.join(", "));
    RuleSet::with_files([("off.toml", text.as_str())]).unwrap()
}

#[tokio::test]
async fn nobody_talks_an_alert_away() {
    let all = attacks();
    let rules = RuleSet::builtin();
    let discord: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let slack: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let to_discord =
        Discord::new("discord", &SecretString::from(discord::url(&discord)), Severity::Low, b"key").unwrap();
    let to_slack = Slack::new("slack", &SecretString::from(slack::url(&slack)), Severity::Low, b"key").unwrap();
    let (mut suppressed, mut lowered, mut active) = (Vec::new(), Vec::new(), Vec::new());
    println!("{:<20} {:>6} {:>10} {:>8} {:>7} {:>9}", "goal", "cases", "suppressed", "lowered", "active", "messages");
    for goal in Goal::ALL {
        let attacks: Vec<&Attack> = all.iter().filter(|attack| attack.goal == goal).collect();
        let obeyed = outcome(&attacks, goal, &rules).await;
        assert!(obeyed.asked > 0, "the model was shown the attacks");
        let before = (suppressed.len(), lowered.len(), active.len());
        for attack in attacks.iter().copied() {
            for hour in [0, 1] {
                match obeyed.told[hour].get(&attack.number) {
                    None => suppressed.push((attack, hour)),
                    Some(severity) if *severity < attack.floor => lowered.push((attack, hour)),
                    Some(_) => {}
                }
            }
        }
        for message in &obeyed.messages {
            to_discord.send(message, Form::Full, None).await.unwrap();
            to_slack.send(message, Form::Full, None).await.unwrap();
            let posted = discord.with(|discord| discord.messages.pop()).unwrap().payload;
            active.extend(inert::discord(&posted, None).err());
            let posted = slack.with(|slack| slack.messages.pop()).unwrap();
            active.extend(inert::slack(&posted, None).err());
            active.extend(inert::terminal(&render(message, Form::Full, &Style { color: false, width: 100 })).err());
        }
        println!(
            "{:<20} {:>6} {:>10} {:>8} {:>7} {:>9}",
            goal.as_str(),
            attacks.len(),
            suppressed.len() - before.0,
            lowered.len() - before.1,
            active.len() - before.2,
            obeyed.messages.len()
        );
    }
    let of = |faults: &[(&Attack, usize)]| -> Vec<String> {
        let line = |(attack, hour): &(&Attack, usize)| {
            format!(
                "{} {} {} {} {hour}: {:?}",
                attack.goal.as_str(),
                attack.carrier,
                attack.phrasing,
                attack.encoding,
                attack.lines.first()
            )
        };
        faults.iter().take(12).map(line).collect()
    };
    let counts = (suppressed.len(), lowered.len(), active.len());
    assert_eq!(
        counts,
        (0, 0, 0),
        "{:#?}\n{:#?}\n{:#?}",
        of(&suppressed),
        of(&lowered),
        active.iter().take(8).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn without_floors_the_attackers_win() {
    let all = attacks();
    let attacks: Vec<&Attack> = all.iter().filter(|attack| attack.goal == Goal::Silence).collect();
    let obeyed = outcome(&attacks, Goal::Silence, &no_rules()).await;
    let held = |attack: &&&Attack| obeyed.told[0].get(&attack.number).is_some_and(|told| *told >= attack.floor);
    let held = attacks.iter().filter(held).count();
    assert!(
        held * 4 < attacks.len(),
        "{held} of {} alerts came all the same: the attacks prove nothing",
        attacks.len()
    );
}
