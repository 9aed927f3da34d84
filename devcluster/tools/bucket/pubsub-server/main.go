// Command pubsub-server is a development stand-in for Google Cloud Pub/Sub: the in-memory server
// that Google's client library is tested with, on an address of one's choice. What it holds is lost
// when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const setupDeadline = 10 * time.Second

// subscription is one to create, on the topic that the command line names before it.
type subscription struct{ name, topic string }

// resources collects the flags -topic and -subscription in their order.
type resources struct {
	topics        []string
	subscriptions []subscription
}

func (r *resources) addTopic(name string) error {
	if err := checkName(name, "topics"); err != nil {
		return err
	}
	r.topics = append(r.topics, name)
	return nil
}

func (r *resources) addSubscription(name string) error {
	if err := checkName(name, "subscriptions"); err != nil {
		return err
	}
	if len(r.topics) == 0 {
		return errors.New("name the subscription's -topic before it")
	}
	r.subscriptions = append(r.subscriptions, subscription{name, r.topics[len(r.topics)-1]})
	return nil
}

func checkName(name, kind string) error {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[1] == "" || parts[2] != kind || parts[3] == "" {
		return fmt.Errorf("%q is not of the form projects/PROJECT/%s/NAME", name, kind)
	}
	return nil
}

// create makes the topics and subscriptions through the server's own gRPC interface.
func (r *resources) create(ctx context.Context, address string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	publisher := pubsubpb.NewPublisherClient(connection)
	for _, name := range r.topics {
		if _, err := publisher.CreateTopic(ctx, &pubsubpb.Topic{Name: name}); err != nil {
			return fmt.Errorf("creating %s: %w", name, err)
		}
	}
	subscriber := pubsubpb.NewSubscriberClient(connection)
	for _, s := range r.subscriptions {
		request := &pubsubpb.Subscription{Name: s.name, Topic: s.topic, AckDeadlineSeconds: 10}
		if _, err := subscriber.CreateSubscription(ctx, request); err != nil {
			return fmt.Errorf("creating %s: %w", s.name, err)
		}
	}
	return nil
}

func main() {
	var wanted resources
	address := flag.String("address", "127.0.0.1:8085", "listen on `HOST:PORT`")
	flag.Func("topic", "create `projects/P/topics/T`; repeatable", wanted.addTopic)
	flag.Func("subscription", "create `projects/P/subscriptions/S` on the last -topic before it; repeatable",
		wanted.addSubscription)
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q: every setting is a flag", flag.Arg(0))
	}

	stop, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer restore()

	server := pstest.NewServerWithAddress(*address)
	defer server.Close()

	setup, cancel := context.WithTimeout(stop, setupDeadline)
	defer cancel()
	if err := wanted.create(setup, server.Addr); err != nil {
		log.Fatalf("pubsub-server on %s: %v", server.Addr, err)
	}
	log.Printf("pubsub-server: a development stand-in for Google Cloud Pub/Sub (in memory, no authentication) on %s, "+
		"%d topics, %d subscriptions", server.Addr, len(wanted.topics), len(wanted.subscriptions))
	<-stop.Done()
}
