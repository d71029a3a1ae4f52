// go-worker serves the pool `go` of a KFM server: a worker in another language, from nothing but the protos.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	event "kfm.example/go-worker/gen/kfm/event/v1"
	types "kfm.example/go-worker/gen/kfm/type/v1"
	pb "kfm.example/go-worker/gen/kfm/worker/v1"
)

// What the server says that no other attempt changes: it ends the worker.
var refusals = []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented}

// key tells attempts apart. An epoch does not: whoever takes a session over goes on with its attempts.
type key struct {
	turn, step string
	attempt    uint32
}

func (w *worker) lock() func() { w.mu.Lock(); return w.mu.Unlock }

func keyOf(ref *pb.AttemptRef) key { return key{ref.TurnId, ref.StepKey, ref.Attempt} }

// held is a lease from its arrival until its result is acknowledged.
type held struct {
	lease   *pb.Lease
	arrived time.Time
	ahead   time.Duration // of the server's clock, before ours
	stop    context.CancelFunc
	stopped string
	result  *pb.LeaseResult
	told    time.Time
}

type worker struct {
	hello  *pb.Hello
	mu     sync.Mutex // guards all below, and sending: a stream takes one message at a time
	stream grpc.BidiStreamingClient[pb.WorkRequest, pb.WorkResponse]
	most   int
	ahead  time.Duration // of the server's clock, before ours
	held   map[key]*held
	places int
}

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:50051", "host:port of the server")
	pool := flag.String("pool", "go", "pool to serve")
	capacity := flag.Int("capacity", 8, "attempts at one time")
	name := flag.String("name", fmt.Sprintf("go-%d", os.Getpid()), "name of this worker, unique in its pool")
	drain := flag.Duration("drain", 30*time.Second, "how long SIGTERM lets run what runs")
	flag.Parse()
	w := &worker{held: map[key]*held{}, places: *capacity}
	w.hello = &pb.Hello{Worker: *name, Pool: *pool, Capacity: uint32(*capacity), Instance: rand.Text(), Program: "go-worker"}
	for name, tool := range tools {
		w.hello.Tools = append(w.hello.Tools, &pb.ToolDefinition{Name: name, Description: tool.description, InputSchemaJson: tool.schema, Effect: tool.effect})
	}
	go w.keep(*endpoint)

	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	<-signals
	unlock := w.lock()
	w.places = 0
	unlock()
	w.tell(&pb.WorkRequest{Message: &pb.WorkRequest_Capacity{Capacity: &pb.Capacity{}}})
	for until := time.Now().Add(*drain); ; {
		select {
		case <-time.After(50 * time.Millisecond):
			if len(w.refs()) == 0 || time.Now().After(until) {
				return
			}
		case <-signals:
			os.Exit(130)
		}
	}
}

// keep opens a stream again whenever one breaks, and cuts nothing of what runs.
func (w *worker) keep(endpoint string) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		began := time.Now()
		err := w.session(endpoint)
		if slices.Contains(refusals, status.Code(err)) {
			slog.Error("the server refuses this worker", "error", err)
			os.Exit(2)
		}
		slog.Warn("the stream has ended", "error", err)
		if time.Since(began) > 2*time.Second {
			pause = 100 * time.Millisecond
		}
		time.Sleep(pause/2 + mrand.N(pause/2))
	}
}

// session is one stream, from its hello to its end.
func (w *worker) session(endpoint string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if token := os.Getenv("KFM_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := pb.NewWorkerServiceClient(conn).Work(ctx)
	if err != nil {
		return err
	}
	hello := proto.CloneOf(w.hello)
	hello.Running = w.refs()
	asked := time.Now()
	_ = stream.Send(&pb.WorkRequest{Message: &pb.WorkRequest_Hello{Hello: hello}}) // reading tells why it failed
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if trip := time.Since(asked); first.GetWelcome().GetNow() != nil && trip < time.Second {
		unlock := w.lock()
		w.ahead = first.GetWelcome().GetNow().AsTime().Sub(asked.Add(trip / 2))
		unlock()
	}
	w.use(stream, int(first.GetWelcome().GetMaxMessageBytes()))
	defer w.use(nil, 0)
	w.tell(&pb.WorkRequest{Message: &pb.WorkRequest_Capacity{Capacity: &pb.Capacity{Capacity: uint32(w.capacity())}}})
	w.tellResults(0)
	go w.beat(ctx, first.GetWelcome().GetLease().AsDuration())
	for {
		said, err := stream.Recv()
		if err != nil {
			return err
		}
		switch message := said.Message.(type) {
		case *pb.WorkResponse_Lease:
			w.take(message.Lease)
		case *pb.WorkResponse_Cancel:
			w.end(message.Cancel.Ref, func(h *held) { h.stopped = "Cancelled: " + message.Cancel.Reason; h.stop() })
		case *pb.WorkResponse_Ack:
			w.end(message.Ack.Ref, func(h *held) { delete(w.held, keyOf(message.Ack.Ref)) })
		case *pb.WorkResponse_Leaving:
			return fmt.Errorf("the server is leaving: %s", message.Leaving.Reason)
		}
	}
}

func (w *worker) use(stream grpc.BidiStreamingClient[pb.WorkRequest, pb.WorkResponse], most int) {
	defer w.lock()()
	w.stream, w.most = stream, most
}

// beat says every third of a lease what is held, and tells again what nobody acknowledged for two.
func (w *worker) beat(ctx context.Context, lease time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(lease/3, 100*time.Millisecond)):
			w.tell(&pb.WorkRequest{Message: &pb.WorkRequest_Heartbeat{Heartbeat: &pb.Heartbeat{Running: w.refs()}}})
			w.tellResults(2 * lease)
		}
	}
}

// tell sends if a stream stands; what matters is told again on the next.
func (w *worker) tell(request *pb.WorkRequest) {
	defer w.lock()()
	if w.stream != nil {
		_ = w.stream.Send(request)
	}
}

// tellResults tells those that were not told yet, or had no answer for so long.
func (w *worker) tellResults(unanswered time.Duration) {
	defer w.lock()()
	for _, h := range w.held {
		if h.result != nil && w.stream != nil && time.Since(h.told) >= unanswered {
			h.told = time.Now()
			_ = w.stream.Send(&pb.WorkRequest{Message: &pb.WorkRequest_Result{Result: h.result}})
		}
	}
}

func (w *worker) capacity() int {
	defer w.lock()()
	return w.places
}

func (w *worker) refs() (refs []*pb.AttemptRef) {
	defer w.lock()()
	for _, h := range w.held {
		refs = append(refs, h.lease.Ref)
	}
	return refs
}

// take performs a lease, or declines what is unknown or too much; one that is held goes on.
func (w *worker) take(lease *pb.Lease) {
	unlock := w.lock()
	running := 0
	for _, h := range w.held {
		if h.result == nil {
			running++
		}
	}
	tool, known := tools[lease.Tool]
	if w.held[keyOf(lease.Ref)] == nil && known && running < w.places {
		ctx, stop := context.WithTimeout(context.Background(), lease.Timeout.AsDuration())
		h := &held{lease: lease, arrived: time.Now(), ahead: w.ahead, stop: stop}
		w.held[keyOf(lease.Ref)] = h
		go w.perform(ctx, h, tool)
	}
	here := w.held[keyOf(lease.Ref)] != nil
	unlock()
	if !here {
		w.tell(&pb.WorkRequest{Message: &pb.WorkRequest_Decline{Decline: &pb.Decline{Ref: lease.Ref, Reason: "no such tool, or no place"}}})
	}
}

// end changes a lease that is held.
func (w *worker) end(ref *pb.AttemptRef, change func(h *held)) {
	defer w.lock()()
	if h := w.held[keyOf(ref)]; h != nil {
		change(h)
	}
}

// perform runs the tool and tells its result, which is kept until it is acknowledged.
func (w *worker) perform(ctx context.Context, h *held, tool tool) {
	defer h.stop()
	began := time.Now()
	result := &pb.LeaseResult{Ref: h.lease.Ref, Status: event.StepStatus_STEP_STATUS_FAILED}
	if late := h.late(); late != "" {
		result.Error = &types.Error{Reason: "REASON_FENCED", Message: late, Retryable: true}
	} else if output, err := tool.call(ctx, h.lease.ArgumentsJson); err == nil {
		result.Status, result.OutputJson = event.StepStatus_STEP_STATUS_SUCCEEDED, output
	} else if ctx.Err() == context.DeadlineExceeded {
		result.Error = &types.Error{Reason: "REASON_STEP_TIMEOUT", Message: "The step took too long.", Retryable: true}
	} else {
		result.Error = &types.Error{Reason: "REASON_TOOL_FAILED", Message: err.Error()}
	}
	result.RunTime = durationpb.New(time.Since(began))
	w.mu.Lock()
	if h.stopped != "" && result.Error != nil {
		result.Status, result.Error = event.StepStatus_STEP_STATUS_CANCELLED, &types.Error{Reason: "REASON_CANCELLED", Message: h.stopped}
	}
	if w.most > 0 && proto.Size(result)+64 > w.most {
		result.Status, result.OutputJson = event.StepStatus_STEP_STATUS_FAILED, ""
		result.Error = &types.Error{Reason: "REASON_PAYLOAD_TOO_LARGE", Message: "The result is larger than the server's max_message_bytes."}
	}
	h.result = result
	w.mu.Unlock()
	w.tellResults(time.Hour)
}

// late says why an attempt must not start any more. Two clocks count: one runs while the process is frozen, the
// other while the machine is; and the server's, as its welcome told it.
func (h *held) late() string {
	within := h.lease.StartWithin.AsDuration()
	steady, wall := time.Since(h.arrived), time.Now().Round(0).Sub(h.arrived.Round(0))
	if steady > within || wall > within || (h.lease.StartBy != nil && time.Now().Add(h.ahead).After(h.lease.StartBy.AsTime())) {
		return "The step was not started: it is too late for that."
	}
	return ""
}
