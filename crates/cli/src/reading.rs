//! Files and standard input as a source, with a progress bar, that ends early when asked to.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use logwarden_core::{
    ProfileName,
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
};
use logwarden_file_source::{Input, Scan, zone};
use tokio::sync::watch;

use crate::{failure::Failure, output::amount, stop};

/// The exit code of what was stopped before it had read all: what the shell says of whoever Ctrl-C ends.
pub(crate) const STOPPED: u8 = 130;
/// What takes less shows no progress.
const SHORT: Duration = Duration::from_millis(700);

/// Reads inputs, counts for the progress, and ends when asked to; whoever asks twice means it.
#[derive(Debug)]
pub(crate) struct Reading {
    inner: Scan,
    names: Vec<String>,
    lines: AtomicU64,
    stopped: watch::Receiver<bool>,
    began: Instant,
    progress: ProgressBar,
}

impl Reading {
    /// Starts to read `files` under `profiles`, and to listen to signals.
    ///
    /// # Errors
    ///
    /// When standard input is named twice, or there is no such time zone.
    pub(crate) fn new(
        files: &[PathBuf],
        profiles: Vec<ProfileName>,
        timezone: Option<&str>,
    ) -> Result<Arc<Self>, Failure> {
        let zone = zone(timezone)
            .map_err(|error| Failure::usage(error.to_string()).hint("an IANA name such as Europe/Berlin, or UTC"))?;
        let inner = Scan::new(inputs(files)?, profiles, BTreeMap::new(), zone);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            stop::asked().await;
            let _ = stop.send(true);
            stop::asked().await;
            std::process::exit(STOPPED.into());
        });
        let progress = progress(files);
        let name = |file: &PathBuf| match file == Path::new("-") {
            true => "standard input".to_owned(),
            false => file.display().to_string(),
        };
        let names = files.iter().map(name).collect();
        Ok(Arc::new(Self { inner, names, lines: AtomicU64::new(0), stopped, began: Instant::now(), progress }))
    }

    /// Whether somebody asked to stop; resolves the receiver's `wait_for` when somebody does.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    /// Where to say what goes on besides reading.
    pub(crate) fn progress(&self) -> &ProgressBar {
        &self.progress
    }

    /// That there are no lines, and where.
    pub(crate) fn nothing_in(&self) -> String {
        match &self.names[..] {
            [one] => format!("{one}: there are no lines in it"),
            some if some.len() <= 5 => format!("{}: there are no lines in them", some.join(", ")),
            many => format!("there are no lines in any of the {} inputs", many.len()),
        }
    }

    fn count(&self, page: &Page) {
        let brought = page.lines.len() as u64;
        let all = self.lines.fetch_add(brought, Ordering::Relaxed) + brought;
        if self.began.elapsed() > SHORT && self.progress.is_hidden() && io::stderr().is_terminal() {
            self.progress.set_draw_target(ProgressDrawTarget::stderr());
            self.progress.enable_steady_tick(Duration::from_millis(120));
        }
        self.progress.inc(page.lines.iter().map(|line| line.text.len() as u64 + 1).sum());
        self.progress.set_message(format!("{} read", amount(all, "line", "lines")));
    }
}

/// A bar when it is known how much there is, hidden until it takes long.
fn progress(files: &[PathBuf]) -> ProgressBar {
    let packed = |file: &Path| file.extension().is_some_and(|end| end == "gz" || end == "zst");
    let size = |file: &PathBuf| {
        let meta = fs::metadata(file).ok().filter(|meta| meta.is_file() && !packed(file))?;
        Some(meta.len())
    };
    let (bar, template) = match files.iter().map(size).sum::<Option<u64>>() {
        Some(bytes) => (ProgressBar::new(bytes), "[{bar:30}] {percent:>3} % · {msg} · {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_draw_target(ProgressDrawTarget::hidden());
    bar
}

/// Opens nothing yet: what cannot be read is told when its turn comes.
pub(crate) fn inputs(files: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    let stdin = Path::new("-");
    if files.iter().filter(|file| *file == stdin).count() > 1 {
        return Err(Failure::usage("standard input can be read only once").hint("name `-` once"));
    }
    let input = |file: &PathBuf| match file == stdin {
        true => Input::Reader { name: "standard input".to_owned(), reader: Box::new(io::stdin()) },
        false => Input::File(file.clone()),
    };
    Ok(files.iter().map(input).collect())
}

#[async_trait]
impl LogSource for Reading {
    fn id(&self) -> &SourceId {
        self.inner.id()
    }

    fn queries(&self) -> &[QueryInfo] {
        self.inner.queries()
    }

    async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let mut stopped = self.stopped.clone();
        let read = self.inner.read(cursor, seen, budget);
        let ended = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            // Ctrl-C ends the writer of a pipe, too: then what it wrote is still read.
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let mut page = tokio::select! {
            page = read => page?,
            // Of a pipe that stays open, such as `journalctl -f`, what has come counts.
            () = ended => self.inner.cut_short(cursor),
        };
        if *self.stopped.borrow() {
            (page.finished, page.more) = (true, false);
        }
        self.count(&page);
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use logwarden_core::testing::source::brings_every_line_once;

    use super::*;

    #[tokio::test]
    async fn what_is_counted_and_can_be_stopped_keeps_the_promises_of_a_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let time = |n: u32| format!("2026-11-21T04:00:{n:02}Z");
        let text = |n: u32| format!("{} web-1 app: line {n}", time(n));
        fs::write(file.path(), (0..20).map(|n| text(n) + "\n").collect::<String>()).unwrap();
        let first = logwarden_core::Timestamp::from_secs(1_795_233_600);
        file.as_file().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_795_233_600)).unwrap();
        // The times in the lines are read later.
        let expected = (0..20).map(|n| (first, text(n), 1)).collect::<Vec<_>>();
        let budget = |lines, bytes| Budget { lines, bytes, now: first.plus(Duration::from_secs(3600)) };
        for budgets in [vec![budget(1000, 1 << 20)], vec![budget(1, 1 << 20), budget(7, 40)], vec![budget(3, 1)]] {
            let files = [file.path().to_owned()];
            let source = Reading::new(&files, vec![ProfileName::general()], Some("UTC")).unwrap();
            brings_every_line_once(&*source, &budgets, expected.clone()).await;
        }
    }

    #[test]
    fn standard_input_is_read_once() {
        assert_eq!(inputs(&["-".into(), "-".into()]).unwrap_err().code(), 2);
    }
}
