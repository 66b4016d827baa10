//! Everything that a real Ollama has said, taken for what it was.

use std::time::Duration;

use logwarden_tests::recorded::{self, Exchange};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    ask::{self, Answer, Patience, Received},
    host::BaseUrl,
    refusal::Refusal,
    transport::Transport,
    wire::{Models, Shown, Version},
};

fn transport(url: &str) -> Transport {
    let base = BaseUrl::parse(url).expect("a URL");
    Transport::new(base, HeaderMap::new(), Vec::new(), Duration::from_secs(5)).expect("a client")
}

async fn chat(transport: &Transport) -> Result<Answer, Refusal> {
    let ten = Duration::from_secs(10);
    let patience = Patience { first: ten, between: ten, total: ten };
    let response = transport.stream("/api/chat", Vec::new(), "m", ten).await?;
    ask::read(response, Instant::now(), patience, 1 << 20, "m", None, &mut Received::default()).await
}

/// What counts, read without our types: content, and tokens of prompt and answer.
fn plainly(text: &str) -> Option<(String, Option<u64>, Option<u64>)> {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).ok()).collect::<Option<_>>()?;
    let last = lines.last()?;
    let whole =
        last["done"] == true && last["done_reason"] == "stop" && lines.iter().all(|line| line["error"].is_null());
    let content: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    let counts = |name: &str| last[name].as_u64();
    (whole && !content.is_empty()).then(|| (content, counts("prompt_eval_count"), counts("eval_count")))
}

/// What a refusal must be, by what the exchange is about.
fn is_right(exchange: &Exchange, refusal: &Refusal) -> bool {
    let number = &exchange.name[..3];
    match exchange.status {
        // Cut off, aborted, empty, or no answer at all but a load: none counts.
        Some(200) if number.starts_with("80") => matches!(refusal, Refusal::Crashed(_)),
        Some(200) => matches!(refusal, Refusal::Answer(_) | Refusal::Runaway(_)),
        Some(503) => matches!(refusal, Refusal::Busy),
        Some(404) => matches!(refusal, Refusal::Missing(_)),
        Some(403) if number == "321" => matches!(refusal, Refusal::Refused(_)),
        Some(403 | 405) => matches!(refusal, Refusal::Hinted { .. }),
        Some(400) if number.starts_with('2') => {
            matches!(refusal, Refusal::Overflow { window: 1.., tokens: 1.. })
                || exchange.text.as_deref().is_some_and(|text| text.contains("shorten the prompt"))
                    && matches!(refusal, Refusal::Overflow { .. })
        }
        // The grammar was taken, and the model did what it allowed.
        Some(500) if number == "425" => matches!(refusal, Refusal::Crashed(_)),
        Some(400 | 500) if number.starts_with('4') => matches!(refusal, Refusal::Grammar(_)),
        Some(500) if number.starts_with("30") && exchange.name.contains("format") => {
            matches!(refusal, Refusal::Grammar(_))
        }
        Some(500) if number.starts_with('8') => matches!(refusal, Refusal::Crashed(_)),
        Some(400 | 500) => matches!(refusal, Refusal::Refused(_)),
        _ => false,
    }
}

async fn look(exchange: &Exchange) -> Option<Result<(), String>> {
    let served = exchange.serve().await.expect("a server");
    let (transport, second) = (transport(&served.url()), Duration::from_secs(5));
    let text = exchange.text.as_deref()?;
    let good = exchange.status == Some(200);
    let short = |failed: Option<Refusal>| match failed {
        None if good => Ok(()),
        Some(Refusal::Missing(_)) if exchange.status == Some(404) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    Some(match exchange.path.as_str() {
        "/api/chat" if exchange.body["_debug_render_only"] == true => return None,
        "/api/chat" => match (chat(&transport).await, plainly(text).filter(|_| good)) {
            (Ok(answer), Some(theirs)) => {
                let ours = (answer.content, answer.last.prompt_eval_count, answer.last.eval_count);
                if ours == theirs { Ok(()) } else { Err(format!("{ours:?} instead of {theirs:?}")) }
            }
            (Ok(answer), None) => Err(format!("taken for an answer: {:?}", answer.content)),
            (Err(refusal), None) if is_right(exchange, &refusal) => Ok(()),
            (Err(refusal), _) => Err(format!("{refusal:?}")),
        },
        "/api/version" => short(transport.get::<Version>("/api/version", second).await.err()),
        "/api/tags" => short(transport.get::<Models>("/api/tags", second).await.err()),
        "/api/ps" => short(transport.get::<Models>("/api/ps", second).await.err()),
        "/api/show" => short(transport.post::<Shown>("/api/show", &"", "m", second).await.err()),
        _ => return None,
    })
}

#[tokio::test]
#[ignore = "needs recordings: LOGWARDEN_RECORDED=DIR cargo test -p logwarden-ollama-client -- --ignored recorded --nocapture"]
async fn recorded_answers_are_taken_for_what_they_were() {
    let (mut looked, mut wrong, mut left_out) = (0, Vec::new(), Vec::new());
    for exchange in recorded::read("ollama") {
        match look(&exchange).await {
            None => left_out.push(exchange.name),
            Some(verdict) => {
                looked += 1;
                wrong.extend(verdict.err().map(|why| format!("{}: {why}", exchange.name)));
            }
        }
    }
    eprintln!("{} of {looked} taken for what they were; not asked by us: {}", looked - wrong.len(), left_out.join(" "));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
