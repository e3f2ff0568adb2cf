//! Queue: the one structure two threads share; single producer, single consumer.
