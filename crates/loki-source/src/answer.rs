//! What Loki answers: streams of lines, or counts.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};

pub(crate) type Labels = BTreeMap<String, String>;

/// The answer of `query_range` and `query`.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) data: Data,
    #[serde(default)]
    pub(crate) warnings: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Data {
    pub(crate) result_type: String,
    #[serde(default)]
    pub(crate) result: Option<Vec<Series>>,
    #[serde(default)]
    pub(crate) stats: Option<Stats>,
}

/// One stream of lines, or one row of counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    #[serde(default)]
    pub(crate) stream: Option<Labels>,
    #[serde(default)]
    pub(crate) values: Vec<Value>,
    #[serde(default)]
    pub(crate) value: Option<Value>,
}

/// A line or a count with its time.
#[derive(Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) time: Time,
    pub(crate) text: String,
    pub(crate) extra: Extra,
}

/// Nanoseconds for lines, seconds for counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Time {
    Nanos(i64),
    Seconds(f64),
}

/// The third element that `categorize-labels` adds.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extra {
    #[serde(default)]
    pub(crate) structured_metadata: Option<Labels>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    #[serde(default)]
    pub(crate) summary: Option<Summary>,
}

/// The three numbers that tell whether a page is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) shards: Option<u64>,
    pub(crate) splits: Option<u64>,
    pub(crate) total_post_filter_lines: Option<u64>,
}

impl Data {
    pub(crate) fn summary(&self) -> Option<Summary> {
        self.stats.as_ref()?.summary
    }

    /// The samples of a count in whole minutes of their time, summed over rows; `None` when a number is unreadable.
    pub(crate) fn counts(&self) -> Option<BTreeMap<i64, u64>> {
        let mut counts = BTreeMap::new();
        for series in self.result.iter().flatten() {
            for value in series.values.iter().chain(&series.value) {
                let Time::Seconds(seconds) = value.time else { return None };
                let count: f64 = value.text.parse().ok()?;
                if !(0.0..1e15).contains(&count) || !(0.0..1e11).contains(&seconds) {
                    return None;
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
                let (minute, count) = ((seconds / 60.0).round() as i64, count.round() as u64);
                *counts.entry(minute).or_insert(0) += count;
            }
        }
        Some(counts)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time and a text")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let missing = || A::Error::custom("a line without time or text");
                let time = seq.next_element()?.ok_or_else(missing)?;
                let text = seq.next_element()?.ok_or_else(missing)?;
                let extra = seq.next_element::<Option<Extra>>()?.flatten().unwrap_or_default();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value { time, text, extra })
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nanoseconds as a string, or seconds")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time::Nanos).map_err(|_| E::custom("a time that is no number of nanoseconds"))
            }

            fn visit_f64<E>(self, seconds: f64) -> Result<Time, E> {
                Ok(Time::Seconds(seconds))
            }

            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
            fn visit_u64<E>(self, seconds: u64) -> Result<Time, E> {
                Ok(Time::Seconds(seconds as f64))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// The answer of `series`, `labels`, `format_query`, whose `data` may be missing.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing<T> {
    #[serde(default = "none")]
    pub(crate) data: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Answer {
        serde_json::from_str(text).expect("an answer")
    }

    /// Shaped like recordings 210, 241, 242, 244 and 331 of a real Loki 3.8.
    #[test]
    fn lines_of_every_shape_are_read() {
        let answer = parse(concat!(
            r#"{"status":"success","data":{"resultType":"streams","encodingFlags":["categorize-labels"],"#,
            r#""result":[{"stream":{"host":"web2","job":"api"},"values":["#,
            r#"["1795213586000000001","login ok",{"structuredMetadata":{"detected_level":"unknown","trace_id":"2"}}],"#,
            r#"["1795213586000000002","\u003cb\u003e \"q\" \u0000 \ufffd \u001b[31m\n","#,
            r#"{"structuredMetadata":{},"parsed":{"__error__":"JSONParserErr"}}]]}]}}"#,
        ));
        let series = &answer.data.result.as_ref().expect("streams")[0];
        assert_eq!(series.stream.as_ref().map(Labels::len), Some(2));
        let texts: Vec<_> = series.values.iter().map(|value| (value.time, value.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (Time::Nanos(1_795_213_586_000_000_001), "login ok"),
                (Time::Nanos(1_795_213_586_000_000_002), "<b> \"q\" \0 \u{fffd} \u{1b}[31m\n"),
            ]
        );
        let metadata = series.values[0].extra.structured_metadata.as_ref();
        assert_eq!(metadata.and_then(|m| m.get("trace_id")).map(String::as_str), Some("2"));
    }

    #[test]
    fn plain_empty_and_foreign_answers_are_read() {
        let plain =
            parse(r#"{"data":{"resultType":"streams","result":[{"stream":{},"values":[["1","x"],["2","",null,7]]}]}}"#);
        assert_eq!(plain.data.result.map(|result| result[0].values.len()), Some(2));
        assert!(parse(r#"{"data":{"resultType":"streams","result":null,"stats":{}}}"#).data.summary().is_none());
        for bad in
            [r#"{"data":{"resultType":"streams","result":[{"stream":{},"values":[["x","y"]]}]}}"#, "[]", "{}", "\"x\""]
        {
            assert!(serde_json::from_str::<Answer>(bad).is_err(), "{bad}");
        }
    }

    /// Recordings 262, 282 and 431.
    #[test]
    fn counts_belong_to_the_minute_that_they_end_with() {
        let matrix = parse(
            r#"{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1795212660,"1"],[1795212720,"3"]]}],
            "stats":{"summary":{"shards":8,"splits":0,"totalPostFilterLines":48}}}}"#,
        );
        assert_eq!(matrix.data.counts(), Some(BTreeMap::from([(29_920_211, 1), (29_920_212, 3)])));
        assert_eq!(matrix.data.summary().and_then(|s| s.shards), Some(8));
        let vector = r#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1795213619.999,"114"]}]}}"#;
        assert_eq!(parse(vector).data.counts(), Some(BTreeMap::from([(29_920_227, 114)])));
        for bad in ["NaN", "x", "-1", "1e300"] {
            let text = format!(r#"{{"data":{{"resultType":"vector","result":[{{"value":[1,"{bad}"]}}]}}}}"#);
            assert_eq!(parse(&text).data.counts(), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(text in ".{0,200}", cut in 0_usize..400) {
            let whole = format!(r#"{{"data":{{"resultType":"streams","result":[{{"stream":{{"a":"{text}"}},"values":[["1","{text}"]]}}]}}}}"#);
            let body = &whole.as_bytes()[..cut.min(whole.len())];
            let _ = serde_json::from_slice::<Answer>(body);
            let _ = serde_json::from_str::<Listing<Vec<Labels>>>(&text);
        }
    }
}
