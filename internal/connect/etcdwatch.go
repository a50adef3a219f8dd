package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// EtcdCallTimeout bounds one call to etcd.
const EtcdCallTimeout = 5 * time.Second

// ErrEtcdTooLarge means that a message from etcd is larger than MaxEtcdMessage.
var ErrEtcdTooLarge = errors.New("etcd sent a message larger than the limit")

// EtcdWatch is a watch of keys in etcd. It is one stream, which is read message by message.
// The watch of etcd's own client is not used, for three reasons: it resumes by itself, perhaps
// at a server that has lost its data; it reassembles large messages; and it buffers without
// limit for a consumer that is behind.
type EtcdWatch struct {
	Session   *EtcdSession
	Ranges    []*etcdserverpb.WatchCreateRequest
	OnCreated func()                    // called once all ranges are watched; may be nil
	OnEvent   func(*mvccpb.Event) error // an error ends the watch
}

// Run passes events on until ctx or the watch ends, and returns the reason. The caller sets
// clientv3.WithRequireLeader on ctx: a member without a leader would otherwise send nothing.
func (w EtcdWatch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(EtcdCallTimeout, func() { cancel(fmt.Errorf("no response in %v", EtcdCallTimeout)) })
	defer timeout.Stop()
	created := 0
	err := w.receive(ctx, func() {
		if created++; created == len(w.Ranges) {
			timeout.Stop()
			if w.OnCreated != nil {
				w.OnCreated()
			}
		}
	})
	return fmt.Errorf("watch %s: %w", w.Ranges[min(created, len(w.Ranges)-1)].Key, err)
}

// receive sends the requests and passes on the events.
func (w EtcdWatch) receive(ctx context.Context, created func()) error {
	stream, err := etcdserverpb.NewWatchClient(w.Session.ActiveConnection()).Watch(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), EtcdError(err))
	}
	for _, r := range w.Ranges {
		if err := stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
			break // Recv returns the error
		}
	}
	for {
		response, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return EtcdError(err)
		case response.CompactRevision != 0:
			return rpctypes.ErrCompacted
		case response.Canceled:
			return cancelError(response.CancelReason)
		case response.Created:
			created()
		}
		for _, e := range response.Events {
			if err := w.OnEvent(e); err != nil {
				return err
			}
		}
	}
}

// cancelError turns a server's reason for canceling a watch, which is the text of a gRPC error,
// back into an error.
func cancelError(reason string) error {
	if reason == "" {
		return errors.New("etcd canceled the watch")
	}
	_, message, found := strings.Cut(reason, " desc = ")
	if !found {
		message = reason
	}
	return rpctypes.Error(errors.New(message))
}

// EtcdError translates the error of a call to etcd. It is ErrEtcdTooLarge if the response was
// larger than MaxEtcdMessage, or than a proxy would forward. etcd reports its own exhausted
// resources with rpctypes errors, which are returned as they are.
func EtcdError(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	err = rpctypes.Error(err)
	if _, own := err.(rpctypes.EtcdError); own {
		return err
	}
	if st.Code() == codes.ResourceExhausted {
		return ErrEtcdTooLarge
	}
	return errors.New(st.Message())
}

// EtcdGet reads a key, or the keys that the options select, within EtcdCallTimeout.
func EtcdGet(ctx context.Context, s *EtcdSession, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, EtcdCallTimeout)
	defer cancel()
	got, err := s.Get(ctx, key, options...)
	return got, EtcdError(err)
}
