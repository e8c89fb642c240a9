//! What the kernel programs say in words, for a person to look into.

use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Messages that are held at once; what comes beyond them is counted.
const MAX_HELD: usize = 64;

/// Takes the kernel programs' messages.
pub struct Messages {
    logger: EbpfLogger<Collector>,
    held: Collector,
}

impl Messages {
    /// Of loaded programs; `None` if none of them has anything to say.
    pub fn new(ebpf: &mut Ebpf) -> Option<Self> {
        let held = Collector::default();
        let logger = EbpfLogger::init_with_logger(ebpf, held.clone()).ok()?;
        Some(Self { logger, held })
    }

    /// What was said since the last call.
    pub fn take(&mut self) -> Vec<String> {
        self.logger.flush();
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { mut messages, beyond } = std::mem::take(&mut *held);
        if beyond > 0 {
            messages.push(format!("and {beyond} more messages of the kernel programs"));
        }
        messages
    }
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    messages: Vec<String>,
    beyond: usize,
}

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.messages.len() < MAX_HELD {
            held.messages.push(record.args().to_string());
        } else {
            held.beyond += 1;
        }
    }

    fn flush(&self) {}
}
