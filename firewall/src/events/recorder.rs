//! From the ring buffer to events that can be read on their own.

use firewall_common::event::FlowEvent;
use nix::time::ClockId;

use super::{
    Event,
    coalesce::Coalescer,
    enrich::{Enricher, Generations, nanoseconds},
    reader::Reader,
};
use crate::intel::{self, Intel};

/// Entries of a ring buffer that are read before something else has its turn.
pub const AT_ONCE: usize = 256;

/// Where events go.
pub trait Sink {
    /// An event as it came, before repeats of it are folded.
    fn seen(&mut self, event: &FlowEvent);
    /// An event to be recorded.
    fn record(&mut self, event: Event);
}

/// Takes events from the kernel.
pub struct Recorder<'a> {
    /// Where they come from.
    pub reader: Reader,
    /// What makes them readable.
    pub enricher: Enricher<'a>,
    coalescer: Coalescer,
}

impl<'a> Recorder<'a> {
    /// For events of loaded programs.
    pub fn new(reader: Reader, enricher: Enricher<'a>) -> Self {
        Self { reader, enricher, coalescer: Coalescer::default() }
    }

    /// Records some events, and tells whether there are more.
    pub fn read(
        &mut self,
        generations: &dyn Generations,
        intel: &Intel,
        sink: &mut dyn Sink,
    ) -> Result<bool, intel::Error> {
        let mut due = Vec::new();
        let more = (0..AT_ONCE).all(|_| {
            let Some(event) = self.reader.read_next(|bytes| FlowEvent::try_from(bytes)) else {
                return false;
            };
            sink.seen(&event);
            self.coalescer.push(event, |event| due.push(event));
            true
        });
        self.record(&due, generations, intel, sink)?;
        Ok(more)
    }

    /// Whether something waits to be recorded.
    pub fn waits(&self) -> bool {
        self.coalescer.waits()
    }

    /// Records what has waited long enough for repeats.
    pub fn tick(
        &mut self,
        generations: &dyn Generations,
        intel: &Intel,
        sink: &mut dyn Sink,
    ) -> Result<(), intel::Error> {
        let now = nanoseconds(ClockId::CLOCK_BOOTTIME) as u64;
        let mut due = Vec::new();
        self.coalescer.tick(now, |event| due.push(event));
        self.record(&due, generations, intel, sink)
    }

    /// Records all that is there.
    pub fn finish(
        &mut self,
        generations: &dyn Generations,
        intel: &Intel,
        sink: &mut dyn Sink,
    ) -> Result<(), intel::Error> {
        while self.read(generations, intel, sink)? {}
        let mut due = Vec::new();
        self.coalescer.flush(|event| due.push(event));
        self.record(&due, generations, intel, sink)
    }

    fn record(
        &mut self,
        events: &[FlowEvent],
        generations: &dyn Generations,
        intel: &Intel,
        sink: &mut dyn Sink,
    ) -> Result<(), intel::Error> {
        for event in events {
            let generation = generations.of(event.generation);
            for event in self.enricher.enrich(event, generation, intel)? {
                sink.record(event);
            }
        }
        Ok(())
    }
}
