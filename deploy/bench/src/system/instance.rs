//! Copies of a service.

use saga_harness::system::Service;

/// One process (copy) of a service. All copies share the service's partitions and its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub service: Service,
    pub number: usize,
}

impl Instance {
    pub fn first(service: Service) -> Self {
        Self { service, number: 0 }
    }

    /// The service's name for the first copy; further copies have a number appended.
    pub fn name(self) -> String {
        match self.number {
            0 => self.service.name().to_owned(),
            number => format!("{}-{}", self.service.name(), number + 1),
        }
    }
}
