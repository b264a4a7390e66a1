//! A port without a network: a function answers each datagram.

use std::{collections::VecDeque, io};

use super::{BATCH, Port, PortInfo};

/// Writes the answer to a datagram into the buffer and returns its length.
pub trait Answer: FnMut(&[u8], &mut [u8]) -> Option<usize> {}
impl<F: FnMut(&[u8], &mut [u8]) -> Option<usize>> Answer for F {}

/// Calls a function for each datagram sent and receives what it answers. For tests, and to measure
/// the generator without what is below it.
#[derive(Debug)]
pub struct MemoryPort<F> {
    answer: F,
    answers: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl<F: Answer> MemoryPort<F> {
    /// A port to `answer`.
    pub fn new(answer: F) -> Self {
        Self { answer, answers: VecDeque::new(), spare: Vec::new(), buffer: vec![0; 1452] }
    }
}

impl<F: Answer> Port for MemoryPort<F> {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        for _ in 0..BATCH {
            let Some(answer) = self.answers.pop_front() else { break };
            take(&answer);
            self.spare.push(answer);
        }
        Ok(0)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<bool> {
        let Some(len) = fill(&mut self.buffer) else { return Ok(true) };
        let mut reply = self.spare.pop().unwrap_or_default();
        reply.resize(1452, 0);
        if let Some(len) = (self.answer)(&self.buffer[..len], &mut reply) {
            reply.truncate(len);
            self.answers.push_back(reply);
        } else {
            self.spare.push(reply);
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn info(&self) -> PortInfo {
        PortInfo { mode: "memory".into(), ..PortInfo::default() }
    }
}
