// Sends to and calls the task of tasks.py, with amqp091-go: go run client.go main.go. The broker is that of AMQPWORKER_URL.
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	connection := must(amqp.Dial(os.Getenv("AMQPWORKER_URL")))
	channel = must(connection.Channel())
	must(0, channel.Confirm(false))
	returns = channel.NotifyReturn(make(chan amqp.Return, 1000))
	// Replies go to the channel that publishes the calls, which must consume them before it publishes.
	deliveries := must(channel.Consume(replyTo, "", true, false, false, false, nil))
	go func() {
		for delivery := range deliveries {
			if replies, found := waiting.LoadAndDelete(delivery.CorrelationId); found {
				replies.(chan []byte) <- delivery.Body
			}
		}
	}()

	must(0, send("welcomes", `{"user_id": 1}`, 0, amqp.Table{}, amqp.Publishing{}))
	fmt.Println("sent")
	must(0, send("welcomes", `{"user_id": 2}`, 1500*time.Millisecond, amqp.Table{}, amqp.Publishing{}))
	fmt.Println("sent, due in 1.5 s")
	fmt.Println("call:", must(call(`{"user_id": 3, "lang": "fr"}`)))
	_, err := call(`{"user_id": -1}`)
	fmt.Println("call:", err)
	fmt.Println("send:", send("invoices", `{"user_id": 4}`, 0, amqp.Table{}, amqp.Publishing{}))

	right, count := make(chan bool), map[bool]int{}
	for id := range [100]int{} {
		go func(id int) {
			right <- must(call(fmt.Sprintf(`{"user_id": %d}`, id))) == fmt.Sprintf("user %d was welcomed in en", id)
		}(id)
	}
	for range [100]int{} {
		count[<-right]++
	}
	fmt.Println(count[true], "of 100 replies are right")
	must(0, connection.Close())
}
