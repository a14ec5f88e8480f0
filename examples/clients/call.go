// Calls the task of tasks.py, with amqp091-go: go run call.go. The broker is that of AMQPWORKER_URL.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const timeout, replyTo = 30 * time.Second, "amq.rabbitmq.reply-to"

var connection = must(amqp.Dial(os.Getenv("AMQPWORKER_URL")))

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// call runs shop.welcome in a worker, and returns what it returned. Goroutines may call at once.
func call(queue, body string) (any, error) {
	channel := must(connection.Channel()) // of this call only: what arrives on it is for this call
	defer channel.Close()
	replies := must(channel.Consume(replyTo, "", true, false, false, false, nil)) // before the call is published
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	id := fmt.Sprintf("%.36s", must(os.ReadFile("/proc/sys/kernel/random/uuid")))
	message := amqp.Publishing{Type: "shop.welcome", MessageId: id, CorrelationId: id, ReplyTo: replyTo}
	message.ContentType, message.DeliveryMode, message.Body = "application/json", amqp.Persistent, []byte(body)
	message.Headers = amqp.Table{"aw-expires": time.Now().UTC().Add(timeout).Format("2006-01-02T15:04:05.000Z")}
	must(0, channel.Publish("amqpworker.tasks", queue, true, false, message))
	select {
	case content := <-replies:
		reply := map[string]any{}
		if err := json.Unmarshal(content.Body, &reply); err != nil || reply["status"] == "done" {
			return reply["value"], err
		}
		return nil, fmt.Errorf("%v: %v: %v", reply["reason"], reply["error_type"], reply["error"])
	case _, open := <-returns:
		if !open {
			return nil, fmt.Errorf("the connection was lost; the task may have run")
		}
		return nil, fmt.Errorf("queue %s does not exist", queue)
	case <-time.After(timeout):
		return nil, fmt.Errorf("no reply in %v; the task may have run", timeout)
	}
}

func main() {
	fmt.Println("call:", must(call("welcomes", `{"user_id": 3, "lang": "fr"}`)))
	_, err := call("welcomes", `{"user_id": -1}`)
	fmt.Println("call:", err)
	_, err = call("invoices", `{"user_id": 4}`)
	fmt.Println("call:", err)
	right, count := make(chan bool), map[bool]int{}
	for user := range [100]int{} {
		go func(user int) {
			right <- must(call("welcomes", fmt.Sprintf(`{"user_id": %d}`, user))) == fmt.Sprintf("user %d was welcomed in en", user)
		}(user)
	}
	for range [100]int{} {
		count[<-right]++
	}
	fmt.Println(count[true], "of 100 replies are right")
	must(0, connection.Close())
}
