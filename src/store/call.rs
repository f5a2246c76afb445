//! Pairs each request with the type of its answer, and declares the enums of a subject from these pairs.

use super::{Failure, Reply, Request};

/// A request with the answer that belongs to it.
pub trait Call: Into<Request> {
    type Answer;

    /// The reply that carries `answer` to this request.
    fn reply(&self, answer: Self::Answer) -> Reply;

    /// The answer in a reply to such a request.
    ///
    /// # Errors
    /// The failure, when the store could not carry the request out.
    ///
    /// # Panics
    /// When the reply belongs to another request. Only a bug of an implementation can cause this, and nothing that such a store
    /// replies could be trusted.
    fn answer(reply: Reply) -> Result<Self::Answer, Failure>;
}

/// Declares the requests of a subject, each with the type of its answer: the enums `Write`, `Read` and `Reply` with one
/// variant for each request, and [`Call`] for each of them.
macro_rules! subject {
    (
        $subject:ident:
        writes { $($write:ident => $written:ty,)+ }
        $(reads { $($read:ident => $found:ty,)+ })?
    ) => {
        /// A write of this subject.
        #[derive(Clone, Debug)]
        pub enum Write { $($write($write),)+ }

        $(
            /// A read of this subject.
            #[derive(Clone, Debug)]
            pub enum Read { $($read($read),)+ }
        )?

        /// An answer, by the request that it belongs to.
        #[derive(Clone, Debug)]
        pub enum Reply { $($write($written),)+ $($($read($found),)+)? }

        impl Reply {
            /// The name of the request that the answer belongs to.
            pub(super) fn request(&self) -> &'static str {
                match self {
                    $(Self::$write(_) => stringify!($write),)+
                    $($(Self::$read(_) => stringify!($read),)+)?
                }
            }
        }

        $($crate::store::call::subject!(@call Write $subject $write $written);)+
        $($($crate::store::call::subject!(@call Read $subject $read $found);)+)?
    };
    (@call $half:ident $subject:ident $request:ident $answer:ty) => {
        impl From<$request> for $crate::store::$half {
            fn from(request: $request) -> Self {
                Self::$subject($half::$request(request))
            }
        }

        impl From<$request> for $crate::store::Request {
            fn from(request: $request) -> Self {
                Self::$half(request.into())
            }
        }

        impl $crate::store::Call for $request {
            type Answer = $answer;

            fn reply(&self, answer: $answer) -> $crate::store::Reply {
                $crate::store::Reply::$subject(Reply::$request(answer))
            }

            fn answer(reply: $crate::store::Reply) -> Result<$answer, $crate::store::Failure> {
                match reply {
                    $crate::store::Reply::$subject(Reply::$request(answer)) => Ok(answer),
                    $crate::store::Reply::Failed(failure) => Err(failure),
                    other => panic!("the store replied to {} as to {}", stringify!($request), other.request()),
                }
            }
        }
    };
}

pub(super) use subject;

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use crate::model::ids::{ConversationId, MessageId, UserId};
    use crate::store::accounts::ReadUser;
    use crate::store::conversations::SetBlock;
    use crate::store::log::FindMessage;
    use crate::store::{Call, Failure, OrderKey, Reply, Write};

    #[test]
    fn an_answer_comes_back_to_its_own_request_only() {
        let conversation = ConversationId::new(7).unwrap();
        let reply = || FindMessage { message: MessageId::MIN }.reply(Some(conversation));
        assert_eq!(FindMessage::answer(reply()), Ok(Some(conversation)));
        assert_eq!(FindMessage::answer(Reply::Failed(Failure::Busy)), Err(Failure::Busy));
        assert!(catch_unwind(|| ReadUser::answer(reply())).is_err());
    }

    #[test]
    fn both_users_of_a_pair_share_an_order() {
        let [one, two] = [1, 2].map(|value| UserId::new(value).unwrap());
        for (user, other) in [(one, two), (two, one)] {
            let write = Write::from(SetBlock { user, other, blocked: true });
            assert_eq!(write.order(), Some(OrderKey::Pair(one, two)));
        }
    }
}
