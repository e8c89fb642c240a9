//! Repeats of a flow within a second become one event with a count.
//!
//! The first is passed on at once; what repeats it within a second is held and told together. The
//! counts of what comes out add up to those of what went in, and so do the bytes of flows that ended.

use std::collections::HashMap;

use firewall_common::{event::FlowEvent, flow::Address};

/// Nanoseconds within which an event repeats the one before.
const WINDOW: u64 = 1_000_000_000;

/// Flows that are remembered at once; beyond it all that is held is told.
const MAX_FLOWS: usize = 65_536;

/// What makes two events the same flow. A source that is not known yet is zero, so attempts that
/// were stopped before they had one fall together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: Address,
    dst: Address,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    verdict: u8,
    reason: u8,
    hook: u8,
    decision: u32,
    generation: u32,
    pid: u32,
    name: u64,
    via: u8,
}

impl Key {
    const fn of(event: &FlowEvent) -> Self {
        Self {
            src: event.src,
            dst: event.dst,
            src_port: event.src_port,
            dst_port: event.dst_port,
            protocol: event.protocol,
            verdict: event.verdict,
            reason: event.reason,
            hook: event.hook,
            decision: event.decision,
            generation: event.generation,
            pid: event.identity.pid,
            name: event.name,
            via: event.via,
        }
    }
}

struct Held {
    /// When the flow was last told.
    told: u64,
    /// What repeated it since, as one event.
    repeat: Option<FlowEvent>,
    /// Ends of flows that are the same but for when they were, as one event.
    close: Option<FlowEvent>,
    /// What the flow that goes on has moved so far, by the latest that says so.
    moved: Option<FlowEvent>,
}

impl Held {
    const fn new(told: u64) -> Self {
        Self { told, repeat: None, close: None, moved: None }
    }

    const fn waits(&self) -> bool {
        self.repeat.is_some() || self.close.is_some() || self.moved.is_some()
    }

    fn add(&mut self, event: FlowEvent) {
        if event.closed != 0 {
            // Has all that was told before.
            self.moved = None;
            let (out, come) = self.close.map_or((0, 0), |close| (close.bytes_out, close.bytes_in));
            self.close = Some(FlowEvent {
                bytes_out: event.bytes_out.saturating_add(out),
                bytes_in: event.bytes_in.saturating_add(come),
                ..event
            });
        } else if event.count == 0 {
            self.moved = Some(event);
        } else {
            let count = self.repeat.map_or(0, |repeat| repeat.count);
            self.repeat = Some(FlowEvent { count: count.saturating_add(event.count), ..event });
        }
    }

    /// In an order in which they can have been.
    fn tell(&mut self, tell: impl FnMut(FlowEvent)) {
        let held = [self.repeat.take(), self.close.take(), self.moved.take()];
        held.into_iter().flatten().for_each(tell);
    }
}

/// Holds repeats back.
#[derive(Default)]
pub struct Coalescer {
    flows: HashMap<Key, Held>,
}

impl Coalescer {
    /// Whether a repeat is held.
    pub fn waits(&self) -> bool {
        self.flows.values().any(Held::waits)
    }

    /// Takes an event and tells what is to be passed on.
    pub fn push(&mut self, event: FlowEvent, mut tell: impl FnMut(FlowEvent)) {
        if self.flows.len() >= MAX_FLOWS {
            self.flush(&mut tell);
        }
        match self.flows.get_mut(&Key::of(&event)) {
            Some(held) => {
                held.add(event);
                if event.time.saturating_sub(held.told) >= WINDOW {
                    held.told = event.time;
                    held.tell(tell);
                }
            }
            None => {
                self.flows.insert(Key::of(&event), Held::new(event.time));
                tell(event);
            }
        }
    }

    /// Tells what was held for a second or longer, at `now` on the clock of the events.
    pub fn tick(&mut self, now: u64, mut tell: impl FnMut(FlowEvent)) {
        self.flows.retain(|_, held| {
            if now.saturating_sub(held.told) < WINDOW {
                return true;
            }
            let waits = held.waits();
            if waits {
                held.told = now;
                held.tell(&mut tell);
            }
            waits
        });
    }

    /// Tells all that is held.
    pub fn flush(&mut self, mut tell: impl FnMut(FlowEvent)) {
        for (_, mut held) in self.flows.drain() {
            held.tell(&mut tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_is_another_flow() {
        let mut coalescer = Coalescer::default();
        let mut told = Vec::new();
        let of = |name, via| FlowEvent { time: 1, count: 1, name, via, ..FlowEvent::default() };
        for (name, via) in [(1, 1), (2, 1), (2, 2), (1, 1)] {
            coalescer.push(of(name, via), |event| told.push((event.name, event.via)));
        }
        assert_eq!(told, [(1, 1), (2, 1), (2, 2)]);
    }

    #[test]
    fn bytes_are_told_after_verdicts_and_never_twice() {
        let mut coalescer = Coalescer::default();
        let mut told = Vec::new();
        let mut tell = |event: FlowEvent| told.push((event.count, event.closed, event.bytes_out));
        let at = |time: u64, count, closed, bytes_out| FlowEvent {
            time: time * 1_000_000,
            count,
            closed,
            bytes_out,
            ..FlowEvent::default()
        };
        for event in [
            at(0, 1, 0, 0),
            at(1, 0, 0, 10),
            // Takes the place of what was told on the way.
            at(2, 0, 1, 15),
            at(3, 1, 0, 0),
            at(4, 0, 1, 7),
            at(5, 1, 0, 0),
            at(6, 0, 0, 2),
            at(7, 0, 0, 3),
        ] {
            coalescer.push(event, &mut tell);
        }
        coalescer.tick(1_000_000_000, &mut tell);
        coalescer.tick(2_000_000_000, &mut tell);
        assert_eq!(told, [(1, 0, 0), (2, 0, 0), (0, 1, 22), (0, 0, 3)]);
    }

    #[test]
    fn nothing_is_lost_and_nothing_told_twice() {
        let mut coalescer = Coalescer::default();
        let mut told = Vec::new();
        let at = |time| FlowEvent { time, count: 1, dst_port: 80, ..FlowEvent::default() };
        for millisecond in [0, 1, 2, 900, 1_500, 1_600] {
            coalescer.push(at(millisecond * 1_000_000), |event| told.push(event.count));
        }
        assert_eq!(told, [1, 4], "the first at once, its repeats with the next after a second");
        coalescer.push(FlowEvent { dst_port: 81, ..at(1_600_000_000) }, |e| told.push(e.count));
        assert_eq!(told, [1, 4, 1], "another flow is not a repeat");
        coalescer.tick(1_700_000_000, |event| told.push(event.count));
        assert_eq!(told, [1, 4, 1]);
        coalescer.tick(2_600_000_000, |event| told.push(event.count));
        assert_eq!(told, [1, 4, 1, 1], "held for a second");
        coalescer.flush(|event| told.push(event.count));
        assert_eq!(told.iter().sum::<u32>(), 7);
    }
}
