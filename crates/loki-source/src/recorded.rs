//! Everything that a real Loki has said, read as it should be.

use std::{collections::BTreeSet, time::Duration};

use logwarden_core::{ProfileName, error::chain, source::QueryInfo};
use logwarden_tests::recorded::{self, Exchange};
use serde_json::Value;
use url::Url;

use crate::{
    answer::{Answer, Data, Labels, Listing},
    config::Builder,
    failure::{Failure, Kind},
    http::Http,
    page::Streams,
};

fn http(url: &str) -> Http {
    let query = QueryInfo { text: "{job=\"x\"}".to_owned(), profiles: vec![ProfileName::general()] };
    let builder = Builder::new(url, vec![query]).retries(0, Duration::ZERO);
    Http::new(&builder, Url::parse(&format!("{url}/")).expect("a URL")).expect("a client")
}

/// What an error must be taken for.
fn expected(exchange: &Exchange) -> Kind {
    match &exchange.name[..3] {
        "254" => Kind::Limit(5000),
        "744" => Kind::Limit(10),
        "259" | "264" | "743" | "747" => Kind::Narrower,
        "601" | "602" | "740" => Kind::Smaller,
        "001" | "223" => Kind::Later,
        "263" | "700" | "704" | "705" | "706" | "707" | "709" => Kind::Source,
        "770" => Kind::Busy,
        _ => Kind::Query,
    }
}

/// The lines of an answer without our types: stream, time, text, metadata.
fn plainly(value: &Value) -> BTreeSet<(String, String, String, String)> {
    let mut lines = BTreeSet::new();
    for series in value["data"]["result"].as_array().into_iter().flatten() {
        let mut labels = series["stream"].clone();
        for shard in ["__stream_shard__", "__time_shard__"] {
            labels.as_object_mut().and_then(|labels| labels.remove(shard));
        }
        for line in series["values"].as_array().into_iter().flatten() {
            let metadata = line[2]["structuredMetadata"].as_object().map_or(String::new(), |map| format!("{map:?}"));
            let text = |at: usize| line[at].as_str().unwrap_or_default().to_owned();
            lines.insert((labels.to_string(), text(0), text(1), metadata));
        }
    }
    lines
}

/// What our reading of an answer lacks.
fn compare(http: &Http, text: &str, data: Data) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let number = |name: &str| value["data"]["stats"]["summary"][name].as_u64();
    let summary = data.summary().ok_or("no summary")?;
    let ours = [summary.shards, summary.splits, summary.total_post_filter_lines];
    let theirs = ["shards", "splits", "totalPostFilterLines"].map(number);
    if ours != theirs {
        return Err(format!("summary {ours:?} instead of {theirs:?}"));
    }
    if value["data"]["resultType"] != "streams" {
        let counts: u64 = data.counts().ok_or("counts that are none")?.values().sum();
        let samples = value["data"]["result"].as_array().into_iter().flatten();
        let samples = samples.flat_map(|series| match series["values"].as_array() {
            Some(values) => values.clone(),
            None => vec![series["value"].clone()],
        });
        let theirs: u64 =
            samples.map(|sample| sample[1].as_str().unwrap_or_default().parse::<u64>().unwrap_or(0)).sum();
        let refused = Streams::default().lines(http, "q", data, i64::MIN, i64::MAX);
        return match refused {
            Err(Failure { kind: Kind::Query, .. }) if counts == theirs => Ok(()),
            other => Err(format!("{counts} instead of {theirs}; as lines {:?}", other.map(|lines| lines.len()))),
        };
    }
    let theirs = plainly(&value);
    let ours = Streams::default().lines(http, "q", data, i64::MIN, i64::MAX);
    let ours = ours.map_err(|failure| chain(&failure.error))?;
    let texts = |lines: Vec<(i64, Vec<u8>)>| lines.into_iter().collect::<BTreeSet<_>>();
    let known = texts(ours.iter().map(|line| (line.time.nanos(), line.text.clone())).collect());
    let all = theirs.iter().map(|(_, time, text, _)| (time.parse().unwrap_or(0), text.clone().into_bytes()));
    let all = texts(all.collect());
    match ours.len() == theirs.len() && known == all {
        true => Ok(()),
        false => Err(format!("{} lines instead of {}", ours.len(), theirs.len())),
    }
}

/// One exchange: nothing when its answer was not kept.
async fn look(exchange: &Exchange) -> Option<Result<(), String>> {
    let served = exchange.serve().await.expect("a server");
    let http = http(&served.url());
    let path = exchange.path.trim_start_matches('/');
    let failed = |failure: Failure| match (exchange.status, expected(exchange)) {
        (Some(200), _) => Err(chain(&failure.error)),
        (_, kind) if kind == failure.kind => Ok(()),
        (_, kind) => Err(format!("{:?} instead of {kind:?}: {}", failure.kind, chain(&failure.error))),
    };
    if exchange.status == Some(200) && exchange.text.is_none() {
        return None;
    }
    let wrong = || Err(format!("HTTP {:?} was taken for an answer", exchange.status));
    let good = exchange.status == Some(200);
    Some(match path.rsplit('/').next().unwrap_or_default() {
        "query_range" | "query" => match http.json::<Answer>(path, &[]).await {
            Ok(reply) if good => compare(&http, exchange.text.as_deref().unwrap_or_default(), reply.value.data),
            Ok(_) => wrong(),
            Err(failure) => failed(failure),
        },
        "series" => http.json::<Listing<Vec<Labels>>>(path, &[]).await.map_or_else(failed, |_| Ok(())),
        "labels" | "values" => http.json::<Listing<Vec<String>>>(path, &[]).await.map_or_else(failed, |_| Ok(())),
        _ => match http.text(path, &[]).await {
            Ok(_) if good => Ok(()),
            Ok(_) => wrong(),
            Err(failure) => failed(failure),
        },
    })
}

#[tokio::test]
#[ignore = "needs recordings: LOGWARDEN_RECORDED=DIR cargo test -p logwarden-loki-source -- --ignored recorded --nocapture"]
async fn recorded_answers_are_read_as_they_should_be() {
    let asked = ["query_range", "query", "series", "labels", "values", "format_query", "ready", "buildinfo"];
    let (mut looked, mut wrong, mut left_out) = (0, Vec::new(), Vec::new());
    for exchange in recorded::read("loki") {
        let end = exchange.path.rsplit('/').next().unwrap_or_default();
        let verdict = if asked.contains(&end) { look(&exchange).await } else { None };
        match verdict {
            None => left_out.push(exchange.name),
            Some(verdict) => {
                looked += 1;
                wrong.extend(verdict.err().map(|why| format!("{}: {why}", exchange.name)));
            }
        }
    }
    eprintln!("{} of {looked} read as they should be; not asked by us: {}", looked - wrong.len(), left_out.join(" "));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
