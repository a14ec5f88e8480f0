// Sends the task of tasks.py, with amqp091-go: go run send.go. The broker is that of AMQPWORKER_URL.
package main

import (
	"fmt"
	"log"
	"math/bits"
	"os"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const unit = 125 * time.Millisecond

var connection = must(amqp.Dial(os.Getenv("AMQPWORKER_URL")))
var channel = must(connection.Channel())
var returns = channel.NotifyReturn(make(chan amqp.Return, 1000))
var returned = map[string]bool{} // ids of messages that no queue took
var lock sync.Mutex              // of that map: goroutines may send at once

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// send publishes a message for shop.welcome with this JSON, and returns its id once the broker has stored it.
func send(queue, body string, delay time.Duration) (string, error) {
	exchange, headers := "amqpworker.tasks", amqp.Table{}
	for units := uint((delay + unit - 1) / unit); units != 0; units &= units - 1 { // from its lowest bit to its highest
		level := fmt.Sprintf("%02d", bits.TrailingZeros(units))
		exchange, headers["aw-wait-"+level] = "amqpworker.delay."+level, true
		headers["aw-eta"] = time.Now().UTC().Add(delay).Format("2006-01-02T15:04:05.000Z")
	}
	id := fmt.Sprintf("%.36s", must(os.ReadFile("/proc/sys/kernel/random/uuid")))
	message := amqp.Publishing{MessageId: id, Type: "shop.welcome", DeliveryMode: amqp.Persistent}
	message.ContentType, message.Headers, message.Body = "application/json", headers, []byte(body)
	confirm, err := channel.PublishWithDeferredConfirm(exchange, queue, true, false, message)
	if err != nil || !confirm.Wait() {
		return "", fmt.Errorf("the broker did not store the message: %v", err)
	}
	lock.Lock()
	defer lock.Unlock()
	for len(returns) > 0 { // the broker returns a message before it confirms it
		returned[(<-returns).MessageId] = true
	}
	if returned[id] {
		delete(returned, id)
		return "", fmt.Errorf("queue %s does not exist", queue)
	}
	return id, nil
}

func main() {
	must(0, channel.Confirm(false))
	must(send("welcomes", `{"user_id": 1}`, 0))
	fmt.Println("sent")
	must(send("welcomes", `{"user_id": 2}`, 1500*time.Millisecond))
	fmt.Println("sent, due in 1.5 s")
	_, err := send("invoices", `{"user_id": 4}`, 0)
	fmt.Println("send:", err)
	must(0, connection.Close())
}
