//! What was measured about a model: tokens per character, speeds, and what was spent.

use std::collections::VecDeque;

use logwarden_core::Timestamp;
use serde::{Deserialize, Serialize};

/// English prose, which our instructions are, in every tokenizer that we looked at.
const PROSE_CHARS_PER_TOKEN: f64 = 4.2;
/// Before anything was measured: tokenizers that split digits have 1.5 to 2.5 on logs.
const FIRST_CHARS_PER_TOKEN: f64 = 2.0;
/// Samples that are remembered.
const SAMPLES: usize = 32;
/// How much a new speed counts.
const WEIGHT: f64 = 0.3;
/// A model of four billion weights on four CPU cores, in tokens a second.
const FIRST_SPEEDS: (f64, f64) = (40.0, 8.0);
const FIRST_ANSWER_TOKENS: f64 = 250.0;
const HOUR: i64 = 3600;

/// What was measured about one model. Plain data, so that it can be kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// The model's name.
    pub model: String,
    /// The model's digest, as the server says: another one makes all measurements void.
    pub digest: String,
    /// Characters per token of recent tables of rows, newest last.
    ratios: VecDeque<f64>,
    /// Tokens read and written a second.
    reading: Option<f64>,
    writing: Option<f64>,
    /// Tokens of an answer.
    answer_tokens: Option<f64>,
    /// Seconds that the longest load took.
    loading: f64,
    /// Hour since 1970, calls, tokens.
    spent: VecDeque<(i64, u32, u64)>,
}

/// The figures of one good answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) static_chars: usize,
    pub(crate) row_chars: usize,
    pub(crate) prompt_tokens: u64,
    /// Whether the server had the static part from the call before.
    pub(crate) cached: bool,
    pub(crate) reading_seconds: f64,
    pub(crate) answer_tokens: u64,
    pub(crate) writing_seconds: f64,
}

impl Calibration {
    /// Forgets everything but what was spent when the model is another one.
    pub(crate) fn about(&mut self, model: &str, digest: &str) {
        if self.model != model || self.digest != digest {
            let spent = std::mem::take(&mut self.spent);
            *self = Self { model: model.to_owned(), digest: digest.to_owned(), spent, ..Self::default() };
        }
    }

    pub(crate) fn learn(&mut self, sample: &Sample) {
        let static_tokens = sample.static_chars as f64 / PROSE_CHARS_PER_TOKEN;
        let row_tokens = sample.prompt_tokens as f64 - static_tokens;
        if row_tokens > 20.0 {
            self.ratio(sample.row_chars as f64 / row_tokens);
        }
        let read = if sample.cached { row_tokens } else { sample.prompt_tokens as f64 };
        blend(&mut self.reading, read.max(1.0) / sample.reading_seconds);
        blend(&mut self.writing, sample.answer_tokens as f64 / sample.writing_seconds);
        blend(&mut self.answer_tokens, sample.answer_tokens as f64);
    }

    /// A refusal tells the exact count, too.
    pub(crate) fn learn_overflow(&mut self, static_chars: usize, row_chars: usize, tokens: u32) {
        let row_tokens = f64::from(tokens) - static_chars as f64 / PROSE_CHARS_PER_TOKEN;
        if row_tokens > 20.0 {
            self.ratio(row_chars as f64 / row_tokens);
        }
    }

    /// So many tokens were not read, or not written, in that time: plan with less until it is measured again.
    pub(crate) fn too_slow(&mut self, reading: Option<(f64, f64)>, writing: Option<(f64, f64)>) {
        let slower = |speed: f64, part: Option<(f64, f64)>| {
            let most = part.and_then(|(tokens, seconds)| sane(Some(tokens / seconds)));
            most.map_or(speed, |most| speed.min(most).max(0.1))
        };
        let (reads, writes) = (slower(self.reading(), reading), slower(self.writing(), writing));
        (self.reading, self.writing) = (Some(reads), Some(writes));
    }

    pub(crate) fn loaded_in(&mut self, seconds: f64) {
        self.loading = self.loading.max(seconds);
    }

    fn ratio(&mut self, ratio: f64) {
        if ratio.is_finite() {
            self.ratios.push_back(ratio.clamp(0.8, 6.0));
            while self.ratios.len() > SAMPLES {
                self.ratios.pop_front();
            }
        }
    }

    /// Characters per token of rows that are planned with: the twentieth-lowest of recent ones, or a careful guess.
    pub fn chars_per_token(&self) -> f64 {
        self.percentile(0.05).unwrap_or(FIRST_CHARS_PER_TOKEN)
    }

    fn percentile(&self, part: f64) -> Option<f64> {
        let mut sorted: Vec<f64> =
            self.ratios.iter().copied().filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * part) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied()
    }

    /// About how many tokens a prompt has, rather too many.
    pub(crate) fn estimate(&self, static_chars: usize, row_chars: usize) -> f64 {
        static_chars as f64 / PROSE_CHARS_PER_TOKEN + row_chars as f64 / self.chars_per_token()
    }

    /// How many it has at least.
    pub(crate) fn at_least(&self, static_chars: usize, row_chars: usize) -> f64 {
        // Not even prose has more than six characters a token.
        let ratio = self.percentile(0.95).filter(|_| self.ratios.len() >= 3).unwrap_or(6.0);
        static_chars as f64 / 6.0 + row_chars as f64 / ratio
    }

    pub(crate) fn reading(&self) -> f64 {
        sane(self.reading).unwrap_or(FIRST_SPEEDS.0)
    }

    pub(crate) fn writing(&self) -> f64 {
        sane(self.writing).unwrap_or(FIRST_SPEEDS.1)
    }

    /// Whether a speed was measured at all.
    pub(crate) fn is_measured(&self) -> bool {
        sane(self.reading).is_some() && sane(self.writing).is_some()
    }

    pub(crate) fn answer(&self) -> f64 {
        sane(self.answer_tokens).unwrap_or(FIRST_ANSWER_TOKENS)
    }

    pub(crate) fn loading(&self) -> f64 {
        if self.loading.is_finite() { self.loading.clamp(0.0, 86_400.0) } else { 0.0 }
    }

    pub(crate) fn spend(&mut self, now: Timestamp, calls: u32, tokens: u64) {
        let hour = now.secs().div_euclid(HOUR);
        match self.spent.back_mut().filter(|(last, ..)| *last == hour) {
            Some((_, all_calls, all_tokens)) => {
                *all_calls = all_calls.saturating_add(calls);
                *all_tokens = all_tokens.saturating_add(tokens);
            }
            None => self.spent.push_back((hour, calls, tokens)),
        }
        while self.spent.len() > 25 {
            self.spent.pop_front();
        }
    }

    /// Calls and tokens since the beginning of this hour, and since that of the hour 23 hours ago.
    pub(crate) fn spent(&self, now: Timestamp, hours: i64) -> (u32, u64) {
        let hour = now.secs().div_euclid(HOUR);
        let recent = self.spent.iter().filter(|(at, ..)| *at > hour - hours && *at <= hour);
        recent.fold((0, 0), |(calls, tokens), (_, c, t)| (calls.saturating_add(*c), tokens.saturating_add(*t)))
    }
}

fn sane(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value > 0.01)
}

fn blend(speed: &mut Option<f64>, new: f64) {
    if let Some(new) = sane(Some(new)) {
        *speed = Some(sane(*speed).map_or(new, |old| old + WEIGHT * (new - old)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt_tokens: u64, cached: bool) -> Sample {
        Sample {
            static_chars: 4200,
            row_chars: 1000,
            prompt_tokens,
            cached,
            reading_seconds: 10.0,
            answer_tokens: 100,
            writing_seconds: 10.0,
        }
    }

    #[test]
    fn what_is_measured_is_the_part_that_varies() {
        let mut calibration = Calibration::default();
        calibration.learn(&sample(1500, true));
        assert!((calibration.chars_per_token() - 2.0).abs() < 1e-9, "1,000 tokens are the static part");
        assert!((calibration.reading() - 50.0).abs() < 1e-9, "the cached part was not read again");
        assert!((calibration.writing() - 10.0).abs() < 1e-9);
        assert!(calibration.estimate(4200, 1000) > calibration.at_least(4200, 1000));
    }

    #[test]
    fn another_model_starts_anew_but_what_was_spent_stays() {
        let mut calibration = Calibration::default();
        calibration.about("a", "1");
        calibration.learn(&sample(1500, false));
        calibration.spend(Timestamp::from_secs(7200), 2, 3000);
        calibration.about("a", "2");
        assert!(!calibration.is_measured());
        assert_eq!(calibration.spent(Timestamp::from_secs(7300), 1), (2, 3000));
        assert_eq!(calibration.spent(Timestamp::from_secs(3 * 3600), 1), (0, 0));
        assert_eq!(calibration.spent(Timestamp::from_secs(3 * 3600), 24), (2, 3000));
    }

    #[test]
    fn it_survives_being_kept_and_nonsense_in_the_store_is_harmless() {
        let mut calibration = Calibration::default();
        calibration.learn(&sample(1500, false));
        let kept = serde_json::to_string(&calibration).unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(&kept).unwrap(), calibration);
        let odd: Calibration = serde_json::from_str(r#"{"reading":-1e300,"ratios":[0,-5],"loading":1e308}"#).unwrap();
        assert!(odd.reading() > 0.0 && odd.chars_per_token() > 0.0 && odd.loading() < 1e6);
    }
}
