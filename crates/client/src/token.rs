//! Who calls, where no sidecar says it.

use ackwell_proto::Failure;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::Error;

/// A connection whose calls show the token.
pub(crate) type Connection = InterceptedService<Channel, Token>;

/// What calls show, if anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    pub(crate) fn new(token: &str) -> Result<Self, Error> {
        let invalid = |_| Error::Refused(Failure::invalid("the token has characters that no token has"));
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().map_err(invalid)?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
