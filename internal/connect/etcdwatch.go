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

// errTooLarge says that a message of etcd's is larger than connect.EtcdMessage.
var ErrEtcdTooLarge = errors.New("etcd has sent more at once than is read")

// changes is a watch of etcd's keys: one stream, which is read message by message. etcd's
// own client resumes a watch by itself, at a server that may have lost its data, puts the
// parts of a large message together again, and reads on however far behind its user is.
type EtcdWatch struct {
	Session   *EtcdSession
	Ranges    []*etcdserverpb.WatchCreateRequest
	OnCreated func()                    // all of them are watched; may be nil
	OnEvent   func(*mvccpb.Event) error // an error ends it
}

// follow hands on changes until ctx ends or the watch does, and says why. It takes ctx
// with clientv3.WithRequireLeader: without a leader a member answers with silence.
func (c EtcdWatch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(EtcdCallTimeout, func() { cancel(fmt.Errorf("no answer in %v", EtcdCallTimeout)) })
	defer late.Stop()
	begun := 0
	err := c.receive(ctx, func() {
		if begun++; begun == len(c.Ranges) {
			late.Stop()
			if c.OnCreated != nil {
				c.OnCreated()
			}
		}
	})
	return fmt.Errorf("watch %s: %w", c.Ranges[min(begun, len(c.Ranges)-1)].Key, err)
}

// receive sends the requests and hands on what comes.
func (c EtcdWatch) receive(ctx context.Context, created func()) error {
	stream, err := etcdserverpb.NewWatchClient(c.Session.ActiveConnection()).Watch(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), EtcdError(err))
	}
	for _, r := range c.Ranges {
		if err := stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
			break // Recv says why
		}
	}
	for {
		answer, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return EtcdError(err)
		case answer.CompactRevision != 0:
			return rpctypes.ErrCompacted
		case answer.Canceled:
			return cancelError(answer.CancelReason)
		case answer.Created:
			created()
		}
		for _, e := range answer.Events {
			if err := c.OnEvent(e); err != nil {
				return err
			}
		}
	}
}

// canceled is the error that a server means by its reason for the end of a watch: it writes
// there what gRPC makes of one.
func cancelError(reason string) error {
	if reason == "" {
		return errors.New("etcd has ended it")
	}
	_, message, found := strings.Cut(reason, " desc = ")
	if !found {
		message = reason
	}
	return rpctypes.Error(errors.New(message))
}

// etcdError is what the error of a call to etcd means: errTooLarge where the answer was larger
// than is read, or than a server on its way would pass on. etcd's own errors have other words
// for what it has too much of.
func EtcdError(err error) error {
	answer, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	err = rpctypes.Error(err)
	if _, own := err.(rpctypes.EtcdError); own {
		return err
	}
	if answer.Code() == codes.ResourceExhausted {
		return ErrEtcdTooLarge
	}
	return errors.New(answer.Message())
}

// EtcdGet reads a key, or the keys that the options say, within EtcdCallTimeout.
func EtcdGet(ctx context.Context, s *EtcdSession, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, EtcdCallTimeout)
	defer cancel()
	got, err := s.Get(ctx, key, options...)
	return got, EtcdError(err)
}
