//! What leaves is redacted once more: it may have been kept before a pattern was added, or be a model's words.

use std::{borrow::Cow, sync::Arc};

use super::Redactor;
use crate::message::{Body, IncidentView, Message, ProseView, Untrusted};

impl Redactor {
    /// Redacts everything in a message that came from a log or a model.
    pub fn redact_message(&self, message: &mut Message) {
        match &mut message.body {
            Body::Incidents { incidents, summary, .. } => {
                incidents.iter_mut().for_each(|view| self.redact_view(view));
                summary.iter_mut().for_each(|summary| self.redact_prose(&mut summary.text));
            }
            Body::Rollup(rollup) => rollup.top.iter_mut().for_each(|view| self.redact_view(view)),
            Body::Notice(notice) => notice.facts.iter_mut().for_each(|(_, value)| self.redact_untrusted(value)),
            Body::Summary(summary) => self.redact_prose(&mut summary.text),
        }
    }

    fn redact_view(&self, view: &mut IncidentView) {
        let names = [&mut view.title, &mut view.host, &mut view.service];
        let lines = view.evidence.iter_mut().map(|line| &mut line.text);
        let over = view.over.iter_mut().map(|over| &mut over.how);
        names.into_iter().chain(lines).chain(over).for_each(|text| self.redact_untrusted(text));
        let prose = [&mut view.explanation, &mut view.comment, &mut view.recommendation];
        prose.into_iter().flatten().for_each(|prose| self.redact_prose(prose));
        for entity in view.entities.iter_mut().chain(&mut view.newcomers) {
            if let Cow::Owned(text) = self.redact(&entity.value) {
                entity.value = Arc::from(text);
            }
        }
    }

    fn redact_prose(&self, prose: &mut ProseView) {
        self.redact_untrusted(&mut prose.text);
    }

    fn redact_untrusted(&self, text: &mut Untrusted) {
        if let Cow::Owned(redacted) = self.redact(text.raw()) {
            *text = Untrusted::new(redacted);
        }
    }
}
